//! Weights that are learnt from outcomes: Thompson sampling (`loop.md` F11).

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tidemill_core::ids::VersionNumber;
use tidemill_core::spec::BanditSpec;
use tidemill_stats::rng::SeededRng;

use super::Chosen;
use super::sticky::Way;

/// So many draws tell how often each version would be the best.
const DRAWS: usize = 512;

/// What is known of one version.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BanditArm {
    /// Which.
    pub version: VersionNumber,
    /// The sum of its outcomes, each from 0 to 1.
    pub successes: f64,
    /// The sum of what they lacked to 1.
    pub failures: f64,
    /// Its share of the traffic now.
    pub share: f64,
}

/// What a bandit has learnt: to be shown, stored, and given back after a restart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BanditState {
    /// By version, as in the spec.
    pub arms: Vec<BanditArm>,
    /// How many outcomes were told.
    pub outcomes: u64,
}

#[derive(Debug)]
struct Learnt {
    state: BanditState,
    /// How many outcomes the shares rest on.
    shared_at: u64,
}

/// Learns how often each version would be the best, and gives it that share of the traffic.
///
/// Each version's chance of success is Beta(1 + s, 1 + f). The share of a version is the probability that its draw is the largest, by
/// seeded draws, mixed with an even share so that none falls below `min_share`. The shares are then weights like a split's: a key sticks,
/// the chance of every choice is known (the route tells it), and choosing takes no lock.
#[derive(Debug)]
pub(crate) struct Bandit {
    spec: BanditSpec,
    salt: String,
    learnt: Mutex<Learnt>,
    ways: ArcSwap<Vec<Way<Chosen>>>,
}

impl Bandit {
    pub fn new(spec: &BanditSpec, salt: &str, before: Option<&BanditState>) -> Self {
        let known = |version: u32| {
            let mut arms = before.into_iter().flat_map(|state| &state.arms);
            arms.find(|arm| arm.version.0 == version).copied()
        };
        let arm = |version: &u32| {
            known(*version).unwrap_or(BanditArm {
                version: VersionNumber(*version),
                successes: 0.0,
                failures: 0.0,
                share: 0.0,
            })
        };
        let state = BanditState {
            arms: spec.versions.iter().map(arm).collect(),
            outcomes: before.map_or(0, |state| state.outcomes),
        };
        let bandit = Self {
            spec: spec.clone(),
            salt: salt.to_owned(),
            learnt: Mutex::new(Learnt { state, shared_at: 0 }),
            ways: ArcSwap::default(),
        };
        bandit.share_out(&mut bandit.lock());
        bandit
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The versions with their shares.
    pub fn ways(&self) -> arc_swap::Guard<Arc<Vec<Way<Chosen>>>> {
        self.ways.load()
    }

    pub fn state(&self) -> BanditState {
        self.lock().state.clone()
    }

    /// Takes an outcome in, from 0 to 1. Returns whether the version is one of those it chooses from.
    pub fn tell(&self, version: VersionNumber, outcome: f64) -> bool {
        let mut learnt = self.lock();
        let Some(arm) = learnt.state.arms.iter_mut().find(|arm| arm.version == version) else {
            return false;
        };
        let outcome = if outcome.is_nan() {
            0.0
        } else {
            outcome.clamp(0.0, 1.0)
        };
        arm.successes += outcome;
        arm.failures += 1.0 - outcome;
        learnt.state.outcomes += 1;
        self.share_out_if_news(&mut learnt);
        true
    }

    /// Takes in what is stored, unless it is older than what is known.
    pub fn restore(&self, state: &BanditState) {
        let mut learnt = self.lock();
        if state.outcomes < learnt.state.outcomes {
            return;
        }
        for arm in &mut learnt.state.arms {
            if let Some(known) = state.arms.iter().find(|known| known.version == arm.version) {
                (arm.successes, arm.failures) = (known.successes.max(0.0), known.failures.max(0.0));
            }
        }
        learnt.state.outcomes = state.outcomes;
        self.share_out_if_news(&mut learnt);
    }

    /// One outcome among thousands changes nothing that is worth the draws.
    fn share_out_if_news(&self, learnt: &mut Learnt) {
        let news = learnt.state.outcomes - learnt.shared_at;
        if news > learnt.state.outcomes / 50 {
            self.share_out(learnt);
        }
    }

    fn share_out(&self, learnt: &mut Learnt) {
        let arms = &mut learnt.state.arms;
        let mut rng =
            SeededRng::new(self.spec.seed ^ learnt.state.outcomes.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut wins = vec![0_u32; arms.len()];
        for _ in 0..DRAWS {
            let draws = arms
                .iter()
                .map(|arm| rng.beta(1.0 + arm.successes, 1.0 + arm.failures));
            let best = draws.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((best, _)) = best {
                wins[best] += 1;
            }
        }
        let floor = self.spec.min_share;
        let rest = (1.0 - floor * arms.len() as f64).max(0.0);
        for (arm, wins) in arms.iter_mut().zip(wins) {
            arm.share = floor + rest * f64::from(wins) / DRAWS as f64;
        }
        let way = |arm: &BanditArm| {
            let to = Chosen {
                version: arm.version,
                route: Arc::from(format!("bandit {:.4}", arm.share)),
            };
            Way::new(&self.salt, &arm.version.to_string(), to, arm.share)
        };
        self.ways.store(Arc::new(arms.iter().map(way).collect()));
        learnt.shared_at = learnt.state.outcomes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(seed: u64) -> BanditSpec {
        BanditSpec {
            versions: vec![1, 2, 3],
            min_share: 0.05,
            seed,
        }
    }

    /// Outcomes of versions that succeed at these rates, by the shares that the bandit gives them.
    fn play(bandit: &Bandit, rates: [f64; 3], rounds: usize, seed: u64) -> f64 {
        let mut rng = SeededRng::new(seed);
        let mut reward = 0.0;
        for _ in 0..rounds {
            let at = rng.uniform();
            let mut upto = 0.0;
            let state = bandit.state();
            let arm = state.arms.iter().find(|arm| {
                upto += arm.share;
                at < upto
            });
            let version = arm.unwrap_or(&state.arms[2]).version;
            let outcome = f64::from(u8::from(rng.uniform() < rates[version.0 as usize - 1]));
            reward += outcome;
            assert!(bandit.tell(version, outcome));
        }
        reward / rounds as f64
    }

    #[test]
    fn the_best_version_ends_with_nearly_all_and_none_falls_below_its_floor() {
        let bandit = Bandit::new(&spec(1), "s", None);
        let first = bandit.state();
        assert!(
            first.arms.iter().all(|arm| (arm.share - 1.0 / 3.0).abs() < 0.08),
            "{first:?}"
        );
        let mean = play(&bandit, [0.1, 0.3, 0.2], 3_000, 5);
        let state = bandit.state();
        assert!(state.arms[1].share > 0.85, "{state:?}");
        assert!(state.arms.iter().all(|arm| arm.share >= 0.05 - 1e-12));
        assert!((state.arms.iter().map(|arm| arm.share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(mean > 0.24, "an even split earns 0.2, this earned {mean}");
    }

    #[test]
    fn the_same_seed_and_outcomes_give_the_same_shares_and_what_was_learnt_survives_a_restart() {
        let (one, two) = (Bandit::new(&spec(3), "s", None), Bandit::new(&spec(3), "s", None));
        play(&one, [0.1, 0.3, 0.2], 200, 9);
        play(&two, [0.1, 0.3, 0.2], 200, 9);
        assert_eq!(one.state(), two.state());
        let text = serde_json::to_string(&one.state()).unwrap();
        let stored: BanditState = serde_json::from_str(&text).unwrap();
        let again = Bandit::new(&spec(3), "s", Some(&stored));
        let counts = |bandit: &Bandit| {
            bandit
                .state()
                .arms
                .iter()
                .map(|arm| (arm.successes, arm.failures))
                .collect::<Vec<_>>()
        };
        assert_eq!(counts(&again), counts(&one));
        assert!(!again.tell(VersionNumber(9), 1.0), "no such arm");
    }
}
