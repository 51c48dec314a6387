//! A program that has the crate in another place, and a macro that makes structs.

mod vendored {
    pub use offspring::*;
}
mod offspring_is_not_here {
    #[derive(Clone, Copy, crate::vendored::Shm)]
    #[shm(crate = crate::vendored)]
    #[repr(C)]
    pub struct Tick(pub u32);
}

macro_rules! message {
    ($name:ident { $($field:ident: $type:ty),* }) => {
        #[derive(Clone, Copy, offspring::Shm)]
        #[repr(C)]
        struct $name {
            $($field: $type),*
        }
    };
}
message!(Order { price: f64, amount: [u32; 2] });

fn main() {
    let queue = offspring::Queue::<offspring_is_not_here::Tick>::with_capacity(1);
    let orders = offspring::Queue::<Order>::with_capacity(1);
    let order = Order { price: 1.0, amount: [2, 3] };
    let _ = (queue.is_ok(), orders.is_ok(), order.price, order.amount);
}
