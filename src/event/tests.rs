//! The event within one process: threads instead of processes.

use std::thread;

use super::*;
use crate::lock::Lock;
use crate::queue::Queue;
use crate::value::Value;

const SHORT: Duration = Duration::from_millis(30);

fn manual() -> Event {
    Event::new().expect("an event")
}

fn auto() -> Event {
    Event::auto_reset().expect("an event")
}

#[test]
fn a_manual_event_stays_set_until_it_is_cleared() {
    let event = manual();
    assert!(!event.is_auto_reset());
    assert_eq!(event.is_set(), Ok(false));
    assert_eq!(event.try_wait(), Err(TryWaitError::NotSet));
    for _ in 0..2 {
        event.set().expect("ours");
        event.set().expect("ours");
        for _ in 0..3 {
            assert_eq!(event.wait(), Ok(()));
            assert_eq!(event.try_wait(), Ok(()));
            assert_eq!(event.is_set(), Ok(true));
        }
        event.clear().expect("ours");
        event.clear().expect("ours");
        assert_eq!(event.is_set(), Ok(false));
        assert_eq!(event.try_wait(), Err(TryWaitError::NotSet));
    }
}

#[test]
fn an_automatic_event_lets_one_pass_for_each_set() {
    let event = auto();
    assert!(event.is_auto_reset());
    assert_eq!(event.try_wait(), Err(TryWaitError::NotSet));
    for _ in 0..3 {
        event.set().expect("ours");
        assert_eq!(event.is_set(), Ok(true));
        assert_eq!(event.is_set(), Ok(true), "looking takes nothing");
        assert_eq!(event.wait(), Ok(()));
        assert_eq!(event.try_wait(), Err(TryWaitError::NotSet));
    }
}

#[test]
fn several_sets_before_a_wait_are_one() {
    let event = auto();
    (0..5).for_each(|_| event.set().expect("ours"));
    assert_eq!(event.try_wait(), Ok(()));
    assert_eq!(event.try_wait(), Err(TryWaitError::NotSet));
}

#[test]
fn clearing_takes_what_nobody_has_waited_for() {
    let event = auto();
    event.set().expect("ours");
    event.clear().expect("ours");
    assert_eq!(event.try_wait(), Err(TryWaitError::NotSet));
}

#[test]
fn a_wait_with_a_limit_ends_with_it_and_not_before() {
    for event in [manual(), auto()] {
        for wait in [Wait::Spin, Wait::SpinThenSleep, Wait::Sleep] {
            let event = event.with_wait(wait);
            let start = Instant::now();
            assert_eq!(event.wait_timeout(SHORT), Err(WaitTimeoutError::Timeout));
            assert!(start.elapsed() >= SHORT);
            let deadline = Instant::now() + SHORT;
            assert_eq!(event.wait_deadline(deadline), Err(WaitTimeoutError::Timeout));
            assert!(Instant::now() >= deadline);
            let events = [&event, &event];
            let start = Instant::now();
            let waited = Event::wait_any_timeout(&events, SHORT);
            assert_eq!(waited, Err(WaitTimeoutError::Timeout));
            assert!(start.elapsed() >= SHORT);
            let deadline = Instant::now() + SHORT;
            let waited = Event::wait_any_deadline(&events, deadline);
            assert_eq!(waited, Err(WaitTimeoutError::Timeout));
            assert!(Instant::now() >= deadline);
            event.set().expect("ours");
            assert_eq!(event.wait_timeout(Duration::ZERO), Ok(()));
            event.set().expect("ours");
            assert_eq!(event.wait_deadline(Instant::now()), Ok(()));
            event.set().expect("ours");
            assert_eq!(Event::wait_any_timeout(&events, Duration::ZERO), Ok(0));
            event.set().expect("ours");
            assert_eq!(Event::wait_any_deadline(&events, Instant::now()), Ok(0));
            event.clear().expect("ours");
        }
    }
}

/// Two threads answer each other: a set that was lost would be a hang.
#[test]
fn two_threads_wake_each_other_in_every_way_of_waiting() {
    for wait in [Wait::Spin, Wait::SpinThenSleep, Wait::Sleep] {
        let (ping, pong) = (auto().with_wait(wait), auto().with_wait(wait));
        let mut rounds = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..500 {
                    ping.wait().expect("ours");
                    pong.set().expect("ours");
                }
            });
            for _ in 0..500 {
                ping.set().expect("ours");
                pong.wait().expect("ours");
                rounds += 1;
            }
        });
        assert_eq!(rounds, 500);
        assert_eq!(ping.try_wait().and(pong.try_wait()), Err(TryWaitError::NotSet));
    }
}

#[test]
fn of_several_events_the_first_that_is_set_is_taken_and_no_other() {
    let (a, b, c) = (auto(), auto(), manual());
    let all = [&a, &b, &c];
    assert_eq!(Event::try_wait_any(&all), Err(TryWaitError::NotSet));
    all.iter().for_each(|event| event.set().expect("ours"));
    assert_eq!(Event::wait_any(&all), Ok(0));
    assert_eq!(Event::wait_any(&all), Ok(1));
    assert_eq!(Event::wait_any(&all), Ok(2));
    assert_eq!(Event::try_wait_any(&all), Ok(2), "it is reset by hand");
    a.set().expect("ours");
    assert_eq!(Event::try_wait_any(&[&c, &a]), Ok(0));
    assert_eq!(a.is_set(), Ok(true));
    assert_eq!(Event::try_wait_any(&[&b, &a]), Ok(1));
}

#[test]
fn events_of_several_segments_are_waited_for_together() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let ours = Event::auto_reset_in(&segment).expect("an event").with_wait(Wait::Sleep);
    let gate = Event::new_in(&segment).expect("an event");
    let common = auto();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| Event::wait_any(&[&ours, &gate, &common]));
        common.set().expect("ours");
        assert_eq!(waiter.join().expect("no panic"), Ok(2));
        let waiter = scope.spawn(|| Event::wait_any(&[&ours, &gate, &common]));
        gate.set().expect("ours");
        assert_eq!(waiter.join().expect("no panic"), Ok(1));
    });
}

/// An event that stands in the list twice is announced to once: a second announcement would end the
/// sleep at once, and the wait would spin. How often it looked is not seen here; see
/// `system_calls`.
#[test]
fn an_event_may_stand_in_the_list_more_than_once() {
    let event = auto().with_wait(Wait::Sleep);
    let same = Event::open(&Segment::commons().expect("the commons"), event.handle());
    let same = same.expect("it is there");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| Event::wait_any(&[&event, &same, &event]));
        thread::sleep(SHORT);
        same.set().expect("ours");
        assert_eq!(waiter.join().expect("no panic"), Ok(0));
    });
    assert_eq!(event.try_wait(), Err(TryWaitError::NotSet), "it was taken once");
}

/// The kernel takes 128 words at a time.
#[test]
fn more_events_than_the_kernel_takes_are_waited_for() {
    let segment = Segment::create(1 << 18).expect("a segment");
    let make = |_| Event::auto_reset_in(&segment).expect("room").with_wait(Wait::Sleep);
    let events: Vec<Event> = (0..200).map(make).collect();
    let all: Vec<&Event> = events.iter().collect();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| Event::wait_any(&all));
        thread::sleep(SHORT);
        events[177].set().expect("ours");
        assert_eq!(waiter.join().expect("no panic"), Ok(177));
    });
}

#[test]
#[should_panic(expected = "at least one event")]
fn waiting_for_none_of_no_events_is_a_mistake_of_the_caller() {
    let _ = Event::try_wait_any(&[]);
}

#[test]
fn a_handle_opens_the_same_event_reset_in_the_same_way_and_nothing_else() {
    let commons = Segment::commons().expect("the commons");
    for event in [manual(), auto()] {
        let opened = Event::open(&commons, event.handle()).expect("it is there");
        assert_eq!(opened.is_auto_reset(), event.is_auto_reset());
        opened.set().expect("ours");
        assert_eq!(event.clone().try_wait(), Ok(()));
        assert_eq!(event.is_set(), Ok(!event.is_auto_reset()));
        assert!(format!("{event:?}").contains("handle"));
    }
    let (event, count) = (manual(), Value::new(0_u64).expect("a value"));
    assert_eq!(Event::open(&commons, count.handle()).err(), Some(Fault::WrongType));
    assert_eq!(Value::<u64>::open(&commons, event.handle()).err(), Some(Fault::WrongType));
    assert_eq!(Value::<()>::open(&commons, event.handle()).err(), Some(Fault::WrongType));
    assert_eq!(Lock::<()>::open(&commons, event.handle()).err(), Some(Fault::WrongType));
    assert_eq!(Queue::<u64>::open(&commons, event.handle()).err(), Some(Fault::WrongType));
    let name = event.handle();
    drop(event);
    assert_eq!(Event::open(&commons, name).err(), Some(Fault::Stale));
    let elsewhere = Segment::create(1 << 16).expect("a segment");
    assert_eq!(Event::open(&elsewhere, manual().handle()).err(), Some(Fault::Stale));
}

#[test]
fn errors_say_what_happened_in_one_line_and_go_wherever_a_question_mark_sends_them() {
    fn goes<E: std::error::Error + Send + Sync + 'static>() {}
    goes::<TryWaitError>();
    goes::<WaitTimeoutError>();
    assert_eq!(format!("{:?}", TryWaitError::NotSet), "not set");
    assert_eq!(format!("{:?}", WaitTimeoutError::Timeout), "timed out");
    let broken = WaitTimeoutError::from(Fault::Stale);
    assert_eq!(format!("{broken:?}"), Fault::Stale.to_string());
    assert_eq!(TryWaitError::from(Fault::Stale), TryWaitError::Broken(Fault::Stale));
    let sent = postcard::to_stdvec(&broken).expect("written");
    assert_eq!(postcard::from_bytes(&sent), Ok(broken));
}

#[test]
fn a_new_event_is_clear_where_a_set_one_was() {
    let segment = Segment::create(1 << 16).expect("a segment");
    let mut before = None;
    for _ in 0..3 {
        let event = Event::new_in(&segment).expect("room");
        let block = event.handle().block;
        assert_eq!(*before.get_or_insert(block), block, "the same memory");
        assert_eq!(event.is_set(), Ok(false));
        event.set().expect("ours");
    }
}

/// Whether it passes may not depend on how soon it looks again.
#[test]
fn a_waiter_passes_although_the_event_was_cleared_since() {
    let event = manual();
    let place = event.shared.object.enter().expect("ours");
    let block = place.seat().block;
    let seen = block.pass(None).expect_err("it is clear");
    assert_eq!(block.pass(Some(seen)), Err(seen));
    event.set().expect("ours");
    event.clear().expect("ours");
    assert_eq!(block.pass(Some(seen)), Ok(()));
    assert!(block.pass(None).is_err());
}
