//! Children that are no copies of their parent, from a program with threads: these are plain test
//! functions, of which several run at a time.
//!
//! What concerns a whole process (its streams, its user, its end) is tried in a process of its own:
//! see [`scene`].

#[path = "../common/mod.rs"]
mod common;

mod deaths;
mod endings;
mod objects;
mod processes;
mod programs;
mod read_only;
mod scene;
mod settings;
mod values;
mod zygotes;
