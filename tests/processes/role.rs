//! Roles: what this program does when one of its own tests starts it again, as a program with
//! nothing behind it.
#![expect(unsafe_code, reason = "what runs between fork and exec")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use linkme::distributed_slice;

use crate::common::parent;
use crate::harness::within_program;

/// Set to the role, and what it is to know.
const ROLE: &str = "OFFSPRING_TEST_ROLE";

/// A role, as its attribute enters it.
pub struct Role {
    /// With the path of its module.
    pub name: &'static str,
    pub play: fn(&str),
}

#[distributed_slice]
pub static ROLES: [Role];

/// Registers a role: `#[apply(role)]`.
macro_rules! role {
    ($(#[$attribute:meta])* fn $name:ident($argument:tt: &str) $body:block) => {
        const _: () = {
            #[expect(unsafe_code, reason = "linkme chooses the section of the program")]
            #[linkme::distributed_slice($crate::role::ROLES)]
            static ENTRY: $crate::role::Role = $crate::role::Role {
                name: concat!(module_path!(), "::", stringify!($name)),
                play: $name,
            };
        };
        $(#[$attribute])* fn $name($argument: &str) $body
    };
}

pub(crate) use role;

/// Plays the role that this process was started for; false if it was started for none.
pub fn play_own() -> bool {
    let Ok(own) = std::env::var(ROLE) else { return false };
    let (name, argument) = own.split_once(' ').unwrap_or((&own, ""));
    let role = ROLES.iter().find(|role| within_program(role.name) == name);
    (role.unwrap_or_else(|| panic!("no such role: {name}")).play)(argument);
    true
}

/// This program in a role: the path of its function, and what it is to know, after a space. It is
/// killed if this process ends before.
pub fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env(ROLE, role);
    let own = nix::unistd::getpid();
    // SAFETY: makes one system call.
    unsafe {
        command.pre_exec(move || {
            parent::end_with(own);
            Ok(())
        })
    };
    command
}

/// Plays the role, which must end well.
#[track_caller]
pub fn play(role: &str) {
    let status = command(role).status().expect("start");
    assert!(status.success(), "{role}: {status}");
}
