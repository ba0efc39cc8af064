//! Who may do what: users, passwords, tokens, roles and grants, with the methods of [`Tracking`] that are about them.
//!
//! - [`Permission`], [`Principal`]: what a user may do, decided from what was loaded; pure.
//! - [`credentials`]: who a request comes from. A password costs 20 ms to check, so what was checked is remembered.
//! - `accounts`, `tokens`, `grants`, `roles`: the calls that change any of it. Each makes what is remembered stale.

mod accounts;
mod credentials;
mod grants;
mod options;
mod password;
mod permission;
mod places;
mod principal;
mod roles;
mod throttle;
mod tokens;
#[cfg(test)]
mod user_tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_store::users as rows;
use tidemill_store::{ReadTx, StoreError};
use tokio::sync::Semaphore;

use crate::tracking::artifacts::Grounds;
use crate::tracking::{Result, TrackingError};

pub use accounts::{UserInfo, UserPermission};
pub use credentials::Credentials;
pub use grants::GrantInfo;
pub(crate) use grants::give_to_creator;
pub use options::AuthOptions;
pub use permission::{Need, Permission, ServerRole};
pub use places::Place;
pub use principal::{Principal, Readable};
pub use roles::RoleInfo;
pub use tokens::NewToken;

#[allow(unused_imports)] // for the documentation
use crate::tracking::Tracking;

/// The type of resource that an experiment is.
pub const EXPERIMENT: &str = "experiment";
/// The type of resource that a registered model is.
pub const REGISTERED_MODEL: &str = "registered_model";
/// The type of resource that stands for everything in a workspace.
pub const WORKSPACE: &str = "workspace";
/// The pattern that means every resource of a type.
pub const EVERY: &str = "*";

/// So many credentials are remembered at most.
const REMEMBERED: usize = 4096;
/// So many passwords are checked at once: each takes 19 MiB.
const CHECKS: usize = 2;

/// What is remembered of users between requests.
pub(crate) struct Memory {
    /// Makes what stands for a password here worthless elsewhere.
    key: [u8; 32],
    /// Rises whenever anything about users changes.
    generation: AtomicU64,
    known: Mutex<HashMap<[u8; 32], Known>>,
    checks: Arc<Semaphore>,
    throttle: Arc<throttle::Throttle>,
    /// Experiments of runs and logged models, which never change unless a workspace goes.
    places: Mutex<HashMap<String, Place>>,
    /// Where the artifacts of experiments lie.
    pub(crate) grounds: Mutex<Option<Grounds>>,
}

#[derive(Clone)]
struct Known {
    principal: Arc<Principal>,
    generation: u64,
    /// What the password was checked against; empty for a token.
    password: String,
    expires_ms: Option<i64>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let mut key = [0; 32];
        if let Err(error) = getrandom::fill(&mut key) {
            // What is remembered stays in this process: a weak key only makes a dump of its memory easier to read.
            tracing::warn!(%error, "the system gives no random bytes");
        }
        Self {
            key,
            generation: AtomicU64::new(0),
            known: Mutex::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            throttle: Arc::new(throttle::Throttle::new()),
            places: Mutex::default(),
            grounds: Mutex::default(),
        }
    }

    /// What stands for a name here.
    fn stands_for(&self, name: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, name.as_bytes()).as_bytes()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// To be called once a change about users is stored.
    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn recall(&self, digest: &[u8; 32]) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).cloned()
    }

    fn remember(&self, digest: [u8; 32], what: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(digest, what);
    }

    fn forget(&self, digest: &[u8; 32]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(digest);
    }
}

/// What a change of users gave: the store's failure, or a refusal inside it.
pub(crate) type Outcome<T> = std::result::Result<Result<T>, StoreError>;

/// A user that must be there.
fn user_row(tx: &ReadTx<'_>, name: &str) -> std::result::Result<Result<rows::User>, StoreError> {
    Ok(rows::find(tx, name)?
        .ok_or_else(|| TrackingError::not_found(format!("User with username={name} not found"))))
}

/// Leaves a closure of the store with a refusal.
macro_rules! must {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}
use must;
