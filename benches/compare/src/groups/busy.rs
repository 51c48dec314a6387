//! Cores that are wanted by others: does the default way to wait give way in time? It is compared
//! with spinning only and sleeping only. Entries are set up for each slice anew, as the processes
//! beside one of them would not be quiet while another is measured.

use crate::Failure;
use crate::acts::stream::Content;
use crate::figures::{Case, Role};
use crate::groups::{Kit, LATENCY, THROUGHPUT, lock};
use crate::peers::ours::{Copied, Locked, Sleep, Spin};
use crate::stage::Stage;

/// The cases of the group.
pub(crate) fn cases(kit: &Kit) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for (hogs, beside) in [(0, "alone"), (2, "beside a process that uses all it gets of each core")]
    {
        let kit = Kit::new(Stage { hogs, ..kit.stage });
        for count in [1, 4] {
            let mut case =
                Case::new(format!("8 B, {count} to {count}, {beside}"), &THROUGHPUT).anew();
            kit.add_stream::<Copied, 1>(&mut case, Role::Ours, count, Content::Ends);
            kit.add_stream::<Copied<Spin>, 1>(&mut case, Role::Ours, count, Content::Ends);
            kit.add_stream::<Copied<Sleep>, 1>(&mut case, Role::Ours, count, Content::Ends);
            cases.push(case);
        }
        let mut echo = Case::new(format!("8 B there and back, {beside}"), &LATENCY).anew();
        kit.add_echo::<Copied, 1>(&mut echo, Role::Ours);
        kit.add_echo::<Copied<Spin>, 1>(&mut echo, Role::Ours);
        kit.add_echo::<Copied<Sleep>, 1>(&mut echo, Role::Ours);
        cases.push(echo);
        let mut contended =
            Case::new(format!("lock, four contenders, {beside}"), &lock::SPEED).anew();
        lock::add_contended::<Locked>(&kit, &mut contended, Role::Ours, 4);
        lock::add_contended::<Locked<Spin>>(&kit, &mut contended, Role::Ours, 4);
        lock::add_contended::<Locked<Sleep>>(&kit, &mut contended, Role::Ours, 4);
        cases.push(contended);
    }
    Ok(cases)
}
