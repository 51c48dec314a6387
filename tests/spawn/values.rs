//! What goes to a child and comes back.

use std::collections::BTreeMap;
use std::fmt;

use offspring::{Builder, Failure, JoinError, SpawnError, spawn};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::scene::METHODS;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Round { radius: f64 },
    Many(Vec<Shape>, BTreeMap<String, Option<i128>>),
}

fn shape() -> Shape {
    let map = [("one".to_owned(), Some(-1)), ("none".to_owned(), None)].into();
    Shape::Many(vec![Shape::Nothing, Shape::Round { radius: 1.5 }], map)
}

#[test]
fn values_go_to_a_child_and_come_back() {
    for method in METHODS {
        let child = Builder::new().method(method).spawn(|shape: Shape| (shape, 7_u8), shape());
        assert_eq!(child.expect("spawn").join().expect("a value"), (shape(), 7));
        Builder::new().method(method).spawn(|()| (), ()).expect("spawn").join().expect("a value");
    }
}

#[test]
fn functions_of_all_sorts_are_found() {
    fn generic<T: Default + fmt::Debug>(_: ()) -> String {
        format!("{:?}", T::default())
    }
    struct Type;
    impl Type {
        fn method(number: u64) -> u64 {
            number * 2
        }
    }
    assert_eq!(spawn(generic::<u8>, ()).expect("spawn").join().expect("a value"), "0");
    assert_eq!(spawn(generic::<String>, ()).expect("spawn").join().expect("a value"), "\"\"");
    assert_eq!(spawn(Type::method, 21).expect("spawn").join().expect("a value"), 42);
    // Of the standard library.
    assert_eq!(spawn(u64::count_ones, 255).expect("spawn").join().expect("a value"), 8);
}

#[test]
fn a_child_has_statics_of_its_own() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.store(2, Ordering::Relaxed);
    let add = |number| NUMBER.fetch_add(number, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(spawn(add, 5).expect("spawn").join().expect("a value"), 1);
    }
    assert_eq!(NUMBER.load(Ordering::Relaxed), 2);
}

#[test]
fn errors_come_back_as_values() {
    fn parse(text: String) -> Result<u64, Failure> {
        Ok(text.parse::<u64>()?)
    }
    assert_eq!(spawn(parse, "7".into()).expect("spawn").join().expect("a value").expect("7"), 7);
    let failure = spawn(parse, "seven".into()).expect("spawn").join().expect("a value");
    assert!(failure.expect_err("no number").to_string().contains("invalid digit"));
}

#[test]
fn long_arguments_and_values_arrive_whole() {
    const LEN: usize = 100_000_000;
    for method in METHODS {
        let bytes: Vec<u8> = (0..LEN).map(|index| (index % 251) as u8).collect();
        let back = |mut bytes: Vec<u8>| {
            bytes.reverse();
            bytes
        };
        let child = Builder::new().method(method).spawn(back, bytes).expect("spawn");
        let bytes = child.join().expect("a value");
        assert!(bytes.len() == LEN);
        assert!(bytes.iter().rev().enumerate().all(|(at, &byte)| byte == (at % 251) as u8));
    }
    // Encoded piece by piece.
    let texts: Vec<String> = (0..300_000).map(|number| format!("text {number}")).collect();
    let child = spawn(|texts: Vec<String>| (texts.len(), texts), texts.clone()).expect("spawn");
    assert!(child.join().expect("a value") == (texts.len(), texts));
}

/// A value whose encoding or decoding does what it says.
#[derive(Debug, PartialEq)]
struct Wayward(u8);

const FINE: u8 = 0;
const FAILS: u8 = 1;
const PANICS: u8 = 2;
const EXITS: u8 = 3;
const FAILS_TO_DECODE: u8 = 11;
const PANICS_IN_DECODING: u8 = 12;
const EXITS_IN_DECODING: u8 = 13;
const ABORTS_IN_DECODING: u8 = 14;

impl Serialize for Wayward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            FAILS => Err(serde::ser::Error::custom("it does not want to")),
            PANICS => panic!("no encoding today"),
            EXITS => std::process::exit(5),
            way => way.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Wayward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Wayward, D::Error> {
        match u8::deserialize(deserializer)? {
            FAILS_TO_DECODE => Err(serde::de::Error::custom("it does not want to")),
            PANICS_IN_DECODING => panic!("no decoding today"),
            EXITS_IN_DECODING => std::process::exit(6),
            ABORTS_IN_DECODING => std::process::abort(),
            way => Ok(Wayward(way)),
        }
    }
}

#[test]
fn arguments_that_cannot_be_encoded_are_refused() {
    for method in METHODS {
        let spawned = Builder::new().method(method).spawn(|_: Wayward| (), Wayward(FAILS));
        let Err(SpawnError::Arguments(why)) = spawned else { panic!("{spawned:?}") };
        assert!(!why.is_empty() && !why.contains('\0'), "{why:?}");
        let panicked = std::panic::catch_unwind(|| {
            Builder::new().method(method).spawn(|_: Wayward| (), Wayward(PANICS))
        });
        let payload = panicked.expect_err("it panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"no encoding today"));
    }
}

#[test]
fn arguments_that_cannot_be_decoded_are_told() {
    for method in METHODS {
        let ending = |way| {
            let spawned = Builder::new().method(method).spawn(|_: Wayward| 7, Wayward(way));
            spawned.expect("spawn").join()
        };
        assert_eq!(ending(FINE).expect("a value"), 7);
        let Err(JoinError::NotStarted(why)) = ending(FAILS_TO_DECODE) else { panic!("{method:?}") };
        assert!(why.contains("arguments cannot be decoded"), "{why}");
        let Err(JoinError::Panicked(panic)) = ending(PANICS_IN_DECODING) else { panic!() };
        assert_eq!(panic.message, "no decoding today");
        let exited = ending(EXITS_IN_DECODING);
        assert!(matches!(exited, Err(JoinError::Exited(6))), "{exited:?}");
        let aborted = ending(ABORTS_IN_DECODING);
        assert!(matches!(aborted, Err(JoinError::Killed(libc::SIGABRT))), "{aborted:?}");
    }
}

#[test]
fn values_that_cannot_be_sent_or_read_are_told() {
    for method in METHODS {
        let child = |way| Builder::new().method(method).spawn(Wayward, way).expect("spawn");
        assert_eq!(child(FINE).join().expect("a value"), Wayward(FINE));
        let ending = child(FAILS).join();
        assert!(matches!(ending, Err(JoinError::Unsendable(_))), "{ending:?}");
        let Err(JoinError::Panicked(panic)) = child(PANICS).join() else { panic!("{method:?}") };
        assert_eq!(panic.message, "no encoding today");
        let ending = child(EXITS).join();
        assert!(matches!(ending, Err(JoinError::Exited(5))), "{ending:?}");
        let ending = child(FAILS_TO_DECODE).join();
        assert!(matches!(ending, Err(JoinError::Undecodable(_))), "{ending:?}");
    }
}

#[test]
fn an_argument_that_is_refused_is_dropped_once() {
    use std::sync::Arc;
    struct Counted(Arc<()>);
    impl Serialize for Counted {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("never"))
        }
    }
    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Counted, D::Error> {
            Err(serde::de::Error::custom("never"))
        }
    }
    let count = Arc::new(());
    assert!(spawn(|it: Counted| drop(it.0), Counted(Arc::clone(&count))).is_err());
    assert_eq!(Arc::strong_count(&count), 1);
}
