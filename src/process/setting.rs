//! What a child changes of itself before its function runs, as its [`Builder`] says.
//!
//! A child that is no copy of its parent is told its [`Setting`] with the request, and gets folder
//! and streams as descriptors. One that was forked has the builder itself, as [`Asked`].

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::panic;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::process::builder::{Builder, Stream};
use crate::process::failure::Failure;
use crate::process::family;
use crate::sys::error::OsError;
use crate::sys::process::{self as sys, OnlyThread};
use crate::sys::{descriptor, environment, limits};

/// What is said in numbers and text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Setting {
    /// The name that the program has chosen.
    pub(super) name: Option<String>,
    /// All variables; `None` for those that it has.
    pub(super) environment: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    /// Bytes of memory of its own.
    pub(super) memory: Option<u64>,
    /// Seconds of processor time.
    pub(super) cpu: Option<u64>,
    /// A function to run first.
    pub(super) before: Option<u64>,
    /// Whether it goes on when its parent has ended.
    pub(super) is_detached: bool,
}

/// What of a builder no process can have.
pub(super) enum Unfit {
    Name(String),
    Variable(String),
}

/// Why a setting could not be applied.
pub(super) enum Unapplied {
    Os(OsError),
    /// Its environment, beside another thread.
    Threads,
}

impl From<OsError> for Unapplied {
    fn from(refused: OsError) -> Unapplied {
        Unapplied::Os(refused)
    }
}

/// That an environment cannot be set beside another thread.
pub(super) const HAS_THREADS: &str =
    "its environment cannot be set, as another thread runs before its function";

impl Setting {
    /// What the builder says. Without a function to run before, and without the environment.
    pub(super) fn of(builder: &Builder) -> Result<Setting, Unfit> {
        let has_nul = |text: &[u8]| text.contains(&0);
        if let Some(name) = &builder.name
            && has_nul(name.as_bytes())
        {
            return Err(Unfit::Name(name.clone()));
        }
        for (name, value) in &builder.variables {
            let (name, value) = (name.as_encoded_bytes(), value.as_deref().unwrap_or_default());
            if name.is_empty()
                || name.contains(&b'=')
                || has_nul(name)
                || has_nul(value.as_encoded_bytes())
            {
                return Err(Unfit::Variable(OsStr::from_bytes(name).to_string_lossy().into()));
            }
        }
        let seconds =
            |time: Duration| time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
        Ok(Setting {
            name: builder.name.clone(),
            environment: None,
            memory: builder.memory,
            cpu: builder.cpu.map(seconds),
            before: None,
            is_detached: builder.is_detached,
        })
    }

    /// Applies it to this process, which has just begun.
    pub(super) fn apply(&self) -> Result<(), Unapplied> {
        if let Some(variables) = &self.environment {
            let alone = OnlyThread::ask().map_err(|_| Unapplied::Threads)?;
            let owned = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
            let variables =
                variables.iter().map(|(name, value)| (owned(name), owned(value))).collect();
            environment::set_all(&alone, variables);
        }
        if let Some(name) = &self.name {
            sys::set_name(name)?;
        }
        family::set_name(self.name.as_deref());
        limits::apply(self.memory, self.cpu)?;
        Ok(())
    }
}

/// Whether the builder changes the environment.
pub(super) fn changes_environment(builder: &Builder) -> bool {
    builder.is_cleared || !builder.variables.is_empty()
}

/// The variables of the child's environment.
pub(super) fn environment_of(builder: &Builder) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes = |(name, value): (OsString, OsString)| (name.into_vec(), value.into_vec());
    let inherited = std::env::vars_os()
        .filter(|(name, _)| !builder.is_cleared && !builder.variables.contains_key(name));
    let set =
        builder.variables.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    inherited.chain(set).map(bytes).collect()
}

/// Runs a function of the program. Gives how it failed.
pub(super) fn run(function: fn() -> Result<(), Failure>) -> Result<(), String> {
    match panic::catch_unwind(function) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(format!("failed: {failure}")),
        Err(payload) => {
            core::mem::forget(payload);
            Err("panicked".to_owned())
        }
    }
}

/// What to say if the function to run before has failed so.
pub(super) fn before_failed(how: &str) -> String {
    format!("the function to run before {how}")
}

/// What a builder asks of a copy of this process.
#[derive(Debug)]
pub(super) struct Asked {
    setting: Setting,
    folder: Option<PathBuf>,
    streams: [Stream; 3],
    before: Option<fn() -> Result<(), Failure>>,
}

impl Asked {
    pub(super) fn of(builder: Builder) -> Result<Asked, Unfit> {
        let mut setting = Setting::of(&builder)?;
        if changes_environment(&builder) {
            setting.environment = Some(environment_of(&builder));
        }
        let Builder { folder, streams, before, .. } = builder;
        Ok(Asked { setting, folder, streams, before })
    }

    /// Does all of it. For the child; gives why that is not possible.
    pub(super) fn fulfil(self) -> Result<(), String> {
        let refused = |refused: OsError| {
            format!("{} failed: {}", refused.call, std::io::Error::from(refused))
        };
        if let Some(folder) = &self.folder {
            rustix::process::chdir(folder).map_err(OsError::in_call("chdir")).map_err(refused)?;
        }
        set_streams(self.streams).map_err(refused)?;
        self.setting.apply().map_err(|why| match why {
            Unapplied::Os(error) => refused(error),
            Unapplied::Threads => HAS_THREADS.to_owned(),
        })?;
        self.before.map_or(Ok(()), run).map_err(|how| before_failed(&how))
    }
}

fn set_streams(streams: [Stream; 3]) -> Result<(), OsError> {
    // None of them has the number of a standard stream, which another one takes.
    let beyond = |descriptor: OwnedFd| match descriptor.as_raw_fd() {
        0..=2 => descriptor::duplicate(descriptor),
        _ => Ok(descriptor),
    };
    let mut taken = Vec::with_capacity(streams.len());
    for (number, stream) in (0..).zip(streams) {
        match stream {
            Stream::Inherit => {}
            Stream::Null => {
                let null = descriptor::open("/dev/null".as_ref(), OFlags::RDWR)
                    .map_err(OsError::in_call("open /dev/null"))?;
                taken.push((number, beyond(null)?));
            }
            Stream::Descriptor(descriptor) => taken.push((number, beyond(descriptor)?)),
        }
    }
    taken.into_iter().try_for_each(|(number, stream)| environment::set_stream(number, Some(stream)))
}
