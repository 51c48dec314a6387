//! What is explored: each object, in configurations small enough to visit every state.

pub mod controls;
pub mod found;
pub mod heap;
pub mod lock;
pub mod peers;
pub mod queue;
pub mod spsc;
