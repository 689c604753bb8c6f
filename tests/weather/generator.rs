//! The generator of days.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::storm::load::asks;
use crate::storm::scenario::Scenario;
use crate::storm::weather::families::Family;
use crate::storm::weather::{day, family, write};

const DAYS: u64 = 1020;

fn days() -> impl Iterator<Item = Scenario> {
    (0..DAYS).map(|index| day(7, index))
}

#[test]
fn the_same_seed_gives_the_same_days_and_another_gives_others() {
    let texts = |seed| (0..100).map(|index| write::text(&day(seed, index))).collect::<Vec<_>>();
    assert_eq!(texts(3), texts(3));
    // The numbers are in the titles: what is compared is the rest.
    let rest = |text: &String| text.lines().filter(|line| !line.contains("title")).collect::<String>();
    assert!(texts(3).iter().zip(&texts(4)).all(|(a, b)| rest(a) != rest(b)));
}

#[test]
fn each_day_is_the_same_in_its_file() {
    for day in days() {
        let text = write::text(&day);
        let read = Scenario::parse(&day.name, &text).unwrap_or_else(|bad| panic!("{bad}\n{text}"));
        assert_eq!(format!("{read:?}"), format!("{day:?}"), "{text}");
    }
}

#[test]
fn each_family_has_as_many_days_as_any_other() {
    for family_of in Family::ALL {
        let count = (0..DAYS).filter(|index| family(*index) == family_of).count();
        assert_eq!(count, DAYS as usize / Family::ALL.len(), "{}", family_of.name());
    }
    let names: BTreeSet<_> = Family::ALL.map(Family::name).into_iter().collect();
    assert_eq!(names.len(), Family::ALL.len());
}

#[test]
fn loads_and_times_keep_to_their_ranges_and_use_them() {
    let (mut rates, mut processes, mut deadlines, mut timeouts) = (vec![], vec![], vec![], vec![]);
    for day in days() {
        assert!((1.0 / 61.0..=200.0).contains(&day.load.rate), "{}: {} a second", day.name, day.load.rate);
        let requests = day.load.rate * day.load.horizon.as_secs_f64();
        assert!((100.0..=6100.0).contains(&requests), "{}: {requests} requests", day.name);
        assert!((1..=50).contains(&day.load.processes[0]), "{}", day.name);
        let timeout = day.attempt_timeout.as_secs_f64();
        assert!((5.0..=120.0).contains(&timeout), "{}: {timeout} s", day.name);
        let deadline = day.deadline.as_secs_f64();
        assert!((10.0..=14_400.0).contains(&deadline), "{}: {deadline} s", day.name);
        rates.push(day.load.rate);
        processes.push(day.load.processes[0] as f64);
        deadlines.push(deadline);
        timeouts.push(timeout);
    }
    let span = |values: &[f64]| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, values.iter().copied().fold(0.0, f64::max))
    };
    for (what, values, (low, high)) in [
        ("rates", &rates, (0.05, 50.0)),
        ("processes", &processes, (1.0, 40.0)),
        ("deadlines", &deadlines, (20.0, 500.0)),
        ("timeouts", &timeouts, (10.0, 120.0)),
    ] {
        let (least, most) = span(values);
        assert!(least <= low && most >= high, "{what}: from {least} to {most}");
    }
}

#[test]
fn outages_last_from_seconds_to_hours_and_end_within_the_day() {
    let mut lasting = Vec::new();
    for index in (0..DAYS).filter(|index| family(*index) == Family::Outage) {
        let day = day(7, index);
        let outage = day.model.troubles.first().unwrap().when;
        assert!(outage.until < day.load.horizon, "{}", day.name);
        lasting.push(outage.until - outage.from);
    }
    assert!(*lasting.iter().min().unwrap() < Duration::from_secs(10));
    assert!(*lasting.iter().max().unwrap() > Duration::from_secs(3600));
}

#[test]
fn a_day_can_be_lived_through() {
    for day in days().take(200) {
        let asks = asks(&day, day.load.processes[0], 0);
        assert!((50..7000).contains(&asks.len()), "{}: {} requests", day.name, asks.len());
        assert!(day.attempt_timeout > Duration::ZERO && day.deadline >= day.model.latency, "{}", day.name);
        let counted = asks.iter().filter(|ask| day.load.uncounted != Some(ask.tenant)).count();
        assert!(counted > 20, "{}: {counted} of {} count", day.name, asks.len());
    }
}
