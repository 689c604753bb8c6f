use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;

use crate::event::Observer;
use crate::request::{KeyLabel, ModelHint};

/// A state whose need is set by hand, and that counts how often it is asked for it.
#[derive(Default)]
struct Busy {
    need: AtomicU32,
    asked: Option<Arc<AtomicUsize>>,
}

impl Busy {
    fn new(need: Need) -> Self {
        Self { need: AtomicU32::new(need as u32), asked: None }
    }

    fn set(&self, need: Need) {
        self.need.store(need as u32, Relaxed);
    }
}

impl State for Busy {
    fn is_idle(&self) -> bool {
        self.need() == Need::Nothing
    }

    fn need(&self) -> Need {
        if let Some(asked) = &self.asked {
            asked.fetch_add(1, Relaxed);
        }
        [Need::Nothing, Need::Counts, Need::All][self.need.load(Relaxed) as usize]
    }
}

fn keyed<K: Eq + Hash + Clone, T: State>(max_keys: usize) -> Keyed<K, T> {
    Keyed::new(max_keys, LayerKind::RateLimit, Observed::default())
}

#[test]
fn a_key_has_one_state() {
    let keyed = keyed(8);
    let state = keyed.get("a", |_| Busy::default());
    assert!(Arc::ptr_eq(&state, &keyed.get("a", |_| Busy::default())));
    assert!(!Arc::ptr_eq(&state, &keyed.get("b", |_| Busy::default())));
    assert!(keyed.peek(&"c").is_none());
    assert_eq!(keyed.all().len(), 2);
}

#[test]
fn what_is_held_or_needed_is_kept_and_newcomers_have_states_of_their_own() {
    let keyed = keyed(2);
    let held = keyed.get(0, |_| Busy::default());
    keyed.get(1, |_| Busy::new(Need::All));
    let third = keyed.get(2, |_| Busy::default());
    assert!(!Arc::ptr_eq(&third, &keyed.get(3, |_| Busy::default())), "no two keys share a state");
    assert!(keyed.peek(&2).is_none(), "and it is not kept");
    assert!(Arc::ptr_eq(&held, &keyed.get(0, |_| Busy::default())));
    assert_eq!(keyed.get(1, |_| Busy::default()).need(), Need::All);
    // Let go, it makes room for the next one.
    drop(held);
    let fourth = keyed.get(4, |_| Busy::default());
    assert!(keyed.peek(&0).is_none());
    assert!(Arc::ptr_eq(&fourth, &keyed.get(4, |_| Busy::default())));
}

#[test]
fn the_one_that_is_needed_least_makes_room() {
    let keyed = keyed(3);
    keyed.get(0, |_| Busy::new(Need::Counts));
    keyed.get(1, |_| Busy::new(Need::All));
    keyed.get(2, |_| Busy::default());
    keyed.get(3, |_| Busy::new(Need::All));
    assert!(keyed.peek(&2).is_none() && keyed.peek(&0).is_some());
    keyed.get(4, |_| Busy::new(Need::All));
    assert!(keyed.peek(&0).is_none(), "counts alone are no reason to leave a newcomer without a limit");
    keyed.get(5, |_| Busy::default());
    assert_eq!(keyed.all().len(), 3);
    assert!([1, 3, 4].iter().all(|key| keyed.peek(key).is_some()));
    // What was put aside as needed is found again when it is not.
    keyed.peek(&3).expect("it is kept").set(Need::Nothing);
    keyed.get(6, |_| Busy::default());
    assert!(keyed.peek(&3).is_none() && keyed.peek(&6).is_some());
}

#[test]
fn what_is_done_by_hand_is_kept_beyond_the_bound() {
    let keyed = keyed(1);
    keyed.get(0, |_| Busy::new(Need::All));
    keyed.keep(1, |_| Busy::new(Need::All));
    assert_eq!(keyed.all().len(), 2);
    assert_eq!(keyed.keep(1, |_| Busy::default()).need(), Need::All);
    assert!(keyed.get(2, |_| Busy::default()).need() == Need::Nothing && keyed.peek(&2).is_none());
}

#[test]
fn idle_states_are_dropped_on_demand() {
    let keyed = keyed(8);
    for (key, need) in [Need::Nothing, Need::Counts, Need::All, Need::Nothing].into_iter().enumerate() {
        keyed.get(key, |_| Busy::new(need));
    }
    let held = keyed.get(3, |_| Busy::default());
    keyed.evict_idle();
    let mut left: Vec<_> = keyed.all().into_iter().map(|(key, _)| key).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 2, 3]);
    drop(held);
    // The order of the keys that are left is as before: a full map finds them.
    (4..9).for_each(|key| _ = keyed.get(key, |_| Busy::new(Need::All)));
    keyed.get(9, |_| Busy::new(Need::All));
    assert!(keyed.peek(&3).is_none() && keyed.peek(&9).is_some());
}

// The bound on work: what a flood of names costs, in looks at other states.
#[test]
fn a_flood_of_keys_costs_each_newcomer_a_constant_number_of_looks() {
    const NAMES: usize = 100_000;
    // Share of the names that are needed for ever, out of 1,000.
    for needed in [0, 1, 500, 1_000] {
        let asked = Arc::new(AtomicUsize::new(0));
        let keyed = keyed(MAX_KEYS);
        for key in 0..NAMES {
            let need = if key % 1_000 < needed { Need::All } else { Need::Nothing };
            keyed.get(key, |_| Busy { need: AtomicU32::new(need as u32), asked: Some(Arc::clone(&asked)) });
        }
        assert!(keyed.all().len() <= MAX_KEYS);
        // Two for a key that makes room, one when it was put aside, and those that are paid for.
        let most = NAMES * (LOOKS + 3) + MAX_KEYS;
        assert!(asked.load(Relaxed) <= most, "{needed}: {} looks", asked.load(Relaxed));
        if needed == 0 {
            assert!(asked.load(Relaxed) <= 2 * NAMES, "{} looks", asked.load(Relaxed));
        }
    }
}

#[derive(Default)]
struct Told(AtomicUsize);

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        let Event::KeysExhausted { layer: LayerKind::RateLimit, max_keys: 2 } = event else {
            panic!("{event:?}");
        };
        self.0.fetch_add(1, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_told_once_when_all_keys_are_needed_and_once_when_they_are_so_again() {
    let told = Arc::new(Told::default());
    let keyed = Keyed::new(2, LayerKind::RateLimit, Observed::by(Arc::<Told>::clone(&told)));
    (0..2).for_each(|key| _ = keyed.get(key, |_| Busy::new(Need::All)));
    assert_eq!(told.0.load(Relaxed), 0, "they have room");
    (2..1_000).for_each(|key| _ = keyed.get(key, |_| Busy::default()));
    assert_eq!(told.0.load(Relaxed), 1);
    tokio::time::advance(TOLD_AGAIN * 60).await;
    keyed.get(1_000, |_| Busy::default());
    assert_eq!(told.0.load(Relaxed), 1, "nothing has changed");
    // Room comes and goes quickly: told once a minute at most.
    for round in 0..100 {
        keyed.all()[0].1.set(Need::Nothing);
        keyed.get(2_000 + round, |_| Busy::new(Need::All));
        keyed.get(3_000 + round, |_| Busy::default());
    }
    assert_eq!(told.0.load(Relaxed), 2);
    tokio::time::advance(TOLD_AGAIN).await;
    keyed.get(4_000, |_| Busy::default());
    assert_eq!(told.0.load(Relaxed), 3);
}

fn request(path: &str, label: Option<&str>) -> Request<()> {
    let mut request = Request::post(path).body(()).expect("a valid request");
    if let Some(label) = label {
        request.extensions_mut().insert(KeyLabel::new(label));
    }
    request
}

#[test]
fn a_memo_answers_for_the_same_target_only() {
    let keyed: Keyed<u32, Busy> = keyed(64);
    let mut memo = Memo::new();
    let found = AtomicU32::new(0);
    let mut ask = |request: &Request<()>| {
        let before = found.load(Relaxed);
        keyed.of_request(&mut memo, request, View::of(request), |_| {
            let nth = found.fetch_add(1, Relaxed);
            keyed.get(nth, |_| Busy::default())
        });
        found.load(Relaxed) > before
    };
    let path = "/v1beta/models/gemini-3.5-flash-lite:generateContent";
    assert!(ask(&request(path, None)));
    assert!(!ask(&request(path, None)));
    assert!(ask(&request(path, Some("a"))));
    assert!(!ask(&request(path, Some("a"))));
    assert!(ask(&request(path, Some("b"))));
    assert!(ask(&request("/v1beta/models/gemini-3.8-flash:generateContent", Some("b"))));
    let mut hinted = request("/v1beta/models/gemini-3.8-flash:generateContent", Some("b"));
    hinted.extensions_mut().insert(ModelHint::new("x"));
    assert!(ask(&hinted));
    *hinted.method_mut() = http::Method::GET;
    assert!(ask(&hinted));
    assert!(!ask(&hinted));
    assert!(!ask(&hinted));
    // A service that was made for one call finds what another one has met.
    memo = Memo::new();
    keyed.of_request(&mut memo, &hinted, View::of(&hinted), |_| panic!("the layer remembers it"));
    keyed.evict_idle();
    for memo in [&mut memo, &mut Memo::new()] {
        let found = std::cell::Cell::new(false);
        keyed.of_request(memo, &hinted, View::of(&hinted), |_| {
            found.set(true);
            Arc::new(Busy::default())
        });
        assert!(found.get(), "what was dropped is not remembered");
    }
}

#[test]
fn a_memory_keeps_no_state_and_no_state_of_a_call_is_remembered() {
    let keyed: Keyed<u32, Busy> = keyed(1);
    let (known, other) = (request("/v1beta/models/known:generateContent", None), request("/v1", None));
    let mut memo = Memo::new();
    for _ in 0..3 {
        keyed.of_request(&mut memo, &known, View::of(&known), |_| keyed.get(0, |_| Busy::default()));
    }
    // The memory of a service that lives on is no reason to leave another key without a state.
    let second = keyed.get(1, |_| Busy::new(Need::All));
    assert!(keyed.peek(&0).is_none() && keyed.peek(&1).is_some());
    drop(second);
    let made = AtomicU32::new(0);
    for round in 1..4 {
        keyed.of_request(&mut memo, &other, View::of(&other), |_| {
            made.fetch_add(1, Relaxed);
            keyed.get(2, |_| Busy::default())
        });
        assert_eq!(made.load(Relaxed), round, "each call looks for room");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Get { key: u8, need: u8 },
    Hold(u8),
    Release(u8),
    Set { key: u8, need: u8 },
    Evict,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..20_u8, 0..3_u8).prop_map(|(key, need)| Op::Get { key, need }),
        2 => (0..20_u8).prop_map(Op::Hold),
        2 => (0..20_u8).prop_map(Op::Release),
        3 => (0..20_u8, 0..3_u8).prop_map(|(key, need)| Op::Set { key, need }),
        1 => Just(Op::Evict),
    ];
    prop::collection::vec(op, 0..300)
}

proptest! {
    // Against a model that knows what each kept key is needed for, and looks at all of them each time.
    #[test]
    fn a_newcomer_takes_the_place_of_one_that_is_needed_least(ops in ops()) {
        const MOST: usize = 6;
        let needs = [Need::Nothing, Need::Counts, Need::All];
        let keyed: Keyed<u8, Busy> = keyed(MOST);
        let mut model: BTreeMap<u8, Need> = BTreeMap::new();
        let mut held: BTreeMap<u8, Arc<Busy>> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Get { key, need } => {
                    let state = keyed.get(key, |_| Busy::new(needs[need as usize]));
                    if model.contains_key(&key) {
                        prop_assert_eq!(state.need(), model[&key], "a known key has its state");
                    } else {
                        let needed = |(key, need): (&u8, &Need)| {
                            if held.contains_key(key) { Need::All } else { *need }
                        };
                        let least = model.iter().map(needed).min();
                        let full = model.len() >= MOST;
                        let room = !full || least < Some(Need::All);
                        let kept: BTreeMap<u8, Need> =
                            keyed.all().into_iter().map(|(key, state)| (key, state.need())).collect();
                        prop_assert_eq!(kept.contains_key(&key), room);
                        let gone: Vec<u8> =
                            model.keys().filter(|key| !kept.contains_key(key)).copied().collect();
                        prop_assert_eq!(gone.len(), usize::from(full && room));
                        for gone in gone {
                            prop_assert_eq!(Some(needed((&gone, &model[&gone]))), least);
                        }
                        model = kept;
                    }
                }
                Op::Hold(key) => {
                    if let Some(state) = keyed.peek(&key) {
                        held.insert(key, state);
                    }
                }
                Op::Release(key) => drop(held.remove(&key)),
                Op::Set { key, need } => {
                    if let Some(state) = keyed.peek(&key) {
                        state.set(needs[need as usize]);
                        model.insert(key, needs[need as usize]);
                    }
                }
                Op::Evict => {
                    keyed.evict_idle();
                    model.retain(|key, need| held.contains_key(key) || *need != Need::Nothing);
                }
            }
            let states = lock(&keyed.states);
            prop_assert!(states.by_key.len() <= MOST);
            prop_assert_eq!(states.fresh.len() + states.aside.len(), states.by_key.len());
            prop_assert!(model.keys().all(|key| states.by_key.contains_key(key)));
            prop_assert_eq!(model.len(), states.by_key.len());
        }
    }
}

/// Lessons, and where they are counted when the state is dropped with them.
struct Lessons {
    count: AtomicU64,
    lost: Arc<AtomicU64>,
}

impl State for Lessons {
    fn is_idle(&self) -> bool {
        self.count.load(Relaxed) == 0
    }
}

impl Drop for Lessons {
    fn drop(&mut self) {
        self.lost.fetch_add(self.count.load(Relaxed), Relaxed);
    }
}

// Eight threads teach four keys, each of which is made anew again and again while it is idle, and call 100,000 names
// that teach nothing. At most eight states are held at a time, so there is always room; no lesson may be lost, and
// none may be taught to a second state of the same key.
#[test]
fn no_lesson_is_lost_between_threads_that_come_and_make_room() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 20_000;
    let lost = Arc::new(AtomicU64::new(0));
    let keyed: Arc<Keyed<u64, Lessons>> = Arc::new(keyed(16));
    let make = |lost: &Arc<AtomicU64>| Lessons { count: AtomicU64::new(0), lost: Arc::clone(lost) };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (keyed, lost) = (Arc::clone(&keyed), Arc::clone(&lost));
            scope.spawn(move || {
                let mut memo = Memo::new();
                let taught = request("/v1beta/models/m:generateContent", Some("a"));
                for round in 0..ROUNDS {
                    let name = 100 + thread * ROUNDS + round;
                    drop(keyed.get(name, |_| make(&lost)));
                    // Through a memory and through the map.
                    let state = match round % 4 {
                        0 => keyed.of_request(&mut memo, &taught, View::of(&taught), |_| {
                            keyed.get(0, |_| make(&lost))
                        }),
                        key => keyed.get(key, |_| make(&lost)),
                    };
                    // It is taught after a while, when others have looked at it already.
                    if round % 128 == 0 {
                        std::thread::yield_now();
                    }
                    if round >= ROUNDS / 2 {
                        state.count.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(lost.load(Relaxed), 0, "a state with a lesson was dropped");
    let taught: u64 = (0..4).filter_map(|key| keyed.peek(&key)).map(|s| s.count.load(Relaxed)).sum();
    assert_eq!(taught, THREADS * ROUNDS / 2);
    assert!(keyed.all().len() <= 16);
}
