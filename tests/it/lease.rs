//! The script that takes tokens, in a real Redis, and the leases of several nodes, at a time of the test's own: whatever passes
//! would have passed one single bucket.

use std::time::Duration;

use fastrand::Rng;
use tollgate::limit::{Answer, Ask, HOLD, Lease, LeaseStep, Quota, SharedQuota, Tat, decide, largest};

use crate::harness::Redis;

const MILLI: Duration = Duration::from_millis(1);

/// A call that is under way, or its answer.
struct Flight {
    node: usize,
    number: u64,
    ask: Ask,
    sent: Duration,
    taken: Duration,
    answer: Option<Answer>,
}

/// The shared bucket, by the script itself.
struct Bucket {
    script: redis::Script,
    connection: redis::Connection,
    quota: SharedQuota,
    key: String,
    nodes: usize,
}

impl Bucket {
    fn take(&mut self, node: usize, number: u64, ask: Ask, now: Duration) -> Answer {
        let SharedQuota { token, rate, full, .. } = self.quota;
        let mut call = self.script.key(&self.key);
        call.arg(token).arg(rate).arg(full).arg(ask.least).arg(ask.want).arg(ask.left).arg(ask.back).arg(0);
        call.arg(2 * self.nodes).arg(format!("node{node}")).arg(number).arg(u64::try_from(HOLD.as_micros()).unwrap());
        call.arg(u64::try_from(now.saturating_sub(ask.spent).as_micros()).unwrap());
        call.arg(now.as_secs()).arg(now.subsec_micros());
        let (granted, deficit, wait, others) = call.invoke(&mut self.connection).unwrap();
        Answer { granted, deficit, wait: Duration::from_micros(wait), others }
    }
}

/// One trial; how many requests have passed.
fn trial(bucket: &mut Bucket, quota: &Quota, random: &mut Rng) -> usize {
    let most = largest(quota.burst());
    let mut leases = vec![Lease::default(); bucket.nodes];
    let (mut calls, mut answers): (Vec<Flight>, Vec<Flight>) = Default::default();
    let (mut now, mut number, mut passed) = (Duration::from_secs(1_000_000), 0, Vec::new());
    // When a node was given the token that it spends at once.
    let mut given = vec![None; bucket.nodes];
    for _ in 0..400 {
        now += if random.u8(..20) == 0 { MILLI * random.u32(..4_000) } else { MILLI * random.u32(..8) };
        let node = random.usize(..bucket.nodes);
        let ask = match random.u8(..10) {
            0..5 => match leases[node].take(1, 0, most, 0, now) {
                LeaseStep::Pass(ask) => {
                    passed.push(given[node].take().filter(|(_, until)| now < *until).map_or(now, |(at, _)| at));
                    ask
                }
                LeaseStep::Ask(ask) => Some(ask),
                _ => None,
            },
            5..8 if !calls.is_empty() => {
                let mut call = calls.swap_remove(random.usize(..calls.len()));
                call.taken = now;
                call.answer = Some(bucket.take(call.node, call.number, call.ask, now));
                answers.push(call);
                None
            }
            8 if !answers.is_empty() => {
                let Flight { node, ask, sent, answer, taken, .. } = answers.swap_remove(random.usize(..answers.len()));
                let answer = answer.filter(|_| now < sent + 60 * MILLI);
                if answer.is_some_and(|answer| answer.granted > 0) {
                    given[node] = (ask.least > 0).then_some((taken, now + 100 * MILLI));
                }
                leases[node].answered(ask, answer, most, sent, now);
                None
            }
            9 => leases[node].idle(0, now).ok().flatten(),
            _ => None,
        };
        if let Some(ask) = ask {
            number += 1;
            calls.push(Flight { node, number, ask, sent: now, taken: now, answer: None });
        }
    }
    passed.sort_unstable();
    let mut ideal = Tat::default();
    for (i, at) in passed.iter().enumerate() {
        let (verdict, next) = decide(quota, ideal, *at + Duration::from_nanos(2), 1);
        assert!(verdict.allowed(), "{quota:?}: request {i} at {at:?}");
        ideal = next.unwrap();
    }
    passed.len()
}

/// The script, with the test's time in the place of the server's.
fn script() -> redis::Script {
    let source = include_str!("../../src/store/take.lua");
    let ours = source.replace("redis.call('TIME')", "{ARGV[14], ARGV[15]}");
    assert_ne!(source, ours);
    redis::Script::new(&ours)
}

fn bucket(server: &Redis, quota: &Quota, key: &str, nodes: usize) -> Bucket {
    let connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    Bucket { script: script(), connection, quota: SharedQuota::new(quota).unwrap(), key: key.to_owned(), nodes }
}

#[test]
fn the_bucket_does_not_fill_while_tokens_are_held() {
    let server = Redis::start(&[]);
    let quota = Quota::new(10, Duration::from_secs(1), 4).unwrap();
    let (mut shared, start) = (bucket(&server, &quota, "b", 1), Duration::from_secs(9));
    let ask = |least, back, spent| Ask { least, want: 4 * (1 - back / 2), left: 0, back, spent, generation: 0 };
    assert_eq!(shared.take(0, 1, ask(0, 0, start), start).granted, 2);
    // It has held them until now, and has just spent them: only the other two are there, however much time has passed.
    let now = start + 3 * Duration::from_secs(1);
    let granted: u32 = (2..9).map(|number| shared.take(0, number, ask(1, 0, now), now).granted).sum();
    assert_eq!(granted, 2);
    // Had it spent them at once, all four would be.
    let mut other = bucket(&server, &quota, "c", 1);
    assert_eq!(other.take(0, 1, ask(0, 0, start), start).granted, 2);
    let granted: u32 = (2..9).map(|number| other.take(0, number, ask(1, 0, start), now).granted).sum();
    assert_eq!(granted, 4);
    // What goes back is there again, and a call that was given up changes nothing.
    let mut third = bucket(&server, &quota, "d", 1);
    assert_eq!(third.take(0, 7, ask(0, 0, start), start).granted, 2);
    assert_eq!(third.take(0, 6, ask(1, 0, start), start).granted, 0);
    assert_eq!(third.take(0, 8, ask(0, 2, start), start).deficit, 0);
}

#[test]
fn a_clock_that_is_set_back_keeps_nobody_out() {
    let server = Redis::start(&[]);
    let quota = Quota::new(10, Duration::from_secs(1), 4).unwrap();
    let (mut shared, late) = (bucket(&server, &quota, "b", 2), Duration::from_secs(900_000));
    let ask = |least, want, spent| Ask { least, want, left: 0, back: 0, spent, generation: 0 };
    let mut number = 0;
    let mut take = |node, least, want, now| {
        number += 1;
        shared.take(node, number, ask(least, want, now), now).granted
    };
    // The other node holds one, and is not heard of again.
    assert_eq!(take(1, 0, 1, late), 1);
    assert_eq!((0..9).map(|_| take(0, 1, 1, late)).sum::<u32>(), 3);
    let early = late.saturating_sub(Duration::from_secs(3_600));
    assert_eq!(take(0, 1, 1, early), 0, "it gives nothing away");
    let granted = (0..=200).map(|i| take(0, 1, 1, early + MILLI * 10 * i)).sum::<u32>();
    assert!((19..=20).contains(&granted), "{granted} in two seconds");
}

#[test]
fn the_script_lets_nodes_together_pass_no_more_than_one_bucket() {
    let server = Redis::start(&[]);
    let (mut passed, mut random) = (0, Rng::with_seed(7));
    for turn in 0..300 {
        let quota =
            Quota::new(random.u32(1..200), Duration::from_secs(1), random.u32(1..if turn % 2 == 0 { 9 } else { 60 }))
                .unwrap();
        let mut bucket = bucket(&server, &quota, &format!("bucket{turn}"), random.usize(1..5));
        passed += trial(&mut bucket, &quota, &mut random);
    }
    assert!(passed > 1_000, "only {passed} passed: the trial tries nothing");
}
