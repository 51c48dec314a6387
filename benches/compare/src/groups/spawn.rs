//! Children: from start to end, of a small process and of one that has touched a lot of memory.

use std::hint::black_box;
use std::process::Command;

use offspring::{Builder, StartMethod};

use crate::Failure;
use crate::acts::single::each;
use crate::children;
use crate::external::Task;
use crate::figures::{Case, Sample};
use crate::groups::{Kit, LATENCY, limits};
use crate::stage::{Place, Stage};
use crate::troupe::Run;

/// The cases of the group.
pub(crate) fn cases(kit: &Kit) -> Result<Vec<Case>, Failure> {
    Ok(vec![
        of(kit, "start to end, nothing touched", 0),
        of(kit, "start to end, 256 MiB touched", 256),
    ])
}

fn of(kit: &Kit, name: &str, mebibytes: usize) -> Case {
    let stage = kit.stage;
    let mut case = Case::new(name, &LATENCY);
    limits::add_fork(kit, &mut case, "raw fork, _exit and waitpid", mebibytes);
    if mebibytes > 0 {
        let name = "raw fork in a small process, _exit and waitpid";
        limits::add_fork(kit, &mut case, name, 0);
    }
    case.ours("zygote and join", move || {
        host(stage, mebibytes, || start_and_join(StartMethod::Zygote))
    });
    case.ours("spawn and join", move || {
        host(stage, mebibytes, || start_and_join(StartMethod::Spawn))
    });
    case.ours("fork and join", move || {
        host(stage, mebibytes, || {
            let child = children::fork(|| ()).expect("a child");
            child.join().expect("which ends well");
        })
    });
    case.peer("procspawn", move || {
        host(stage, mebibytes, || procspawn::spawn((), |()| ()).join().expect("which ends well"))
    });
    case.peer("posix_spawn of `true`, by std::process::Command", move || {
        host(stage, mebibytes, || {
            let status = Command::new("true").status().expect("a program");
            assert!(status.success(), "which ends well");
        })
    });
    case.peer("std::thread::spawn and join", move || {
        host(stage, mebibytes, || std::thread::spawn(|| ()).join().expect("which ends well"))
    });
    kit.add_programs(&mut case, Task::Spawn { mebibytes });
    case
}

fn start_and_join(method: StartMethod) {
    let child = Builder::new().method(method).spawn(|()| (), ()).expect("a child");
    child.join().expect("which ends well");
}

/// Starts and ends children in a process that has touched so much memory.
fn host(stage: Stage, mebibytes: usize, act: fn()) -> Result<Run<Sample>, Failure> {
    each(stage, Place::Processes, move || {
        let ballast = limits::touched(mebibytes);
        move || {
            black_box(&ballast);
            act();
        }
    })
}
