//! Who a request comes from.

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::digest::Digest;
use tidemill_store::users::{self as rows, Grant, User};
use tidemill_store::{ReadTx, StoreError};

use super::tokens::PREFIX;
use super::{Known, Principal, password};
use crate::tracking::{Result, Tracking, TrackingError};

/// What a request brings to show who sends it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The user's name.
        user: String,
        /// The user's password.
        password: String,
    },
    /// An API token.
    Token(String),
}

impl Credentials {
    /// From the two parts of HTTP Basic. A token in place of the password counts whatever the name is: some clients know nothing else.
    pub fn basic(user: &str, password: &str) -> Self {
        if password.starts_with(PREFIX) {
            return Self::Token(password.to_owned());
        }
        Self::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }
}

fn too_many(wait: Duration) -> TrackingError {
    TrackingError::TooManyLogins {
        wait_s: wait.as_secs() + 1,
    }
}

type Loaded = Option<(User, Vec<Grant>)>;

fn with_grants(tx: &ReadTx<'_>, user: Option<User>) -> std::result::Result<Loaded, StoreError> {
    let Some(user) = user else { return Ok(None) };
    let grants = rows::grants_of(tx, user.id)?;
    Ok(Some((user, grants)))
}

impl Tracking {
    /// The user that credentials belong to, with what they may do; `None` if they are wrong. What was checked once is remembered
    /// until something about users changes, and then only loaded again.
    pub async fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<Principal>>> {
        match credentials {
            Credentials::Password { user, password } => self.with_password(user, password).await,
            Credentials::Token(token) => self.with_token(token).await,
        }
    }

    /// A user and what they may do, by name.
    pub async fn principal(&self, name: &str) -> Result<Principal> {
        let wanted = name.to_owned();
        let loaded = self
            .store()
            .read(move |tx| {
                let user = rows::find(tx, &wanted)?;
                with_grants(tx, user)
            })
            .await?;
        let missing = || TrackingError::not_found(format!("User with username={name} not found"));
        let (user, grants) = loaded.ok_or_else(missing)?;
        Ok(Principal::new(&user, grants, self.default_permission()))
    }

    async fn with_password(&self, name: &str, password: &str) -> Result<Option<Arc<Principal>>> {
        let memory = self.users();
        let mut hasher = blake3::Hasher::new_keyed(&memory.key);
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(password.as_bytes());
        let digest = *hasher.finalize().as_bytes();
        let tried = memory.stands_for(name);
        // Also before what is remembered: else a guess that is right could be told, and guesses would be free.
        if let Some(wait) = memory.throttle.wait(&tried) {
            return Err(too_many(wait));
        }
        let generation = memory.generation();
        let remembered = memory.recall(&digest);
        if let Some(known) = &remembered
            && known.generation == generation
        {
            return Ok(Some(Arc::clone(&known.principal)));
        }
        let wanted = name.to_owned();
        let loaded = self
            .store()
            .read(move |tx| {
                let user = rows::find(tx, &wanted)?;
                with_grants(tx, user)
            })
            .await?;
        let still = |user: &User| {
            let known = remembered.as_ref();
            known.is_some_and(|known| known.principal.id == user.id && known.password == user.password)
        };
        let right = match &loaded {
            Some((user, _)) if still(user) => true,
            Some((user, _)) => self.log_in(tried, password, Some(user.password.clone())).await?,
            None => self.log_in(tried, password, None).await?,
        };
        let Some((user, grants)) = loaded.filter(|_| right) else {
            memory.forget(&digest);
            return Ok(None);
        };
        let principal = Arc::new(Principal::new(&user, grants, self.default_permission()));
        let known = Known {
            principal: Arc::clone(&principal),
            generation,
            password: user.password,
            expires_ms: None,
        };
        memory.remember(digest, known);
        Ok(Some(principal))
    }

    async fn with_token(&self, token: &str) -> Result<Option<Arc<Principal>>> {
        let memory = self.users();
        let digest = *blake3::keyed_hash(&memory.key, token.as_bytes()).as_bytes();
        let (generation, now_ms) = (memory.generation(), self.now_ms());
        if let Some(known) = memory.recall(&digest)
            && known.generation == generation
            && known.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms)
        {
            return Ok(Some(known.principal));
        }
        let stored = Digest::of(token.as_bytes()).to_string();
        let found = self
            .store()
            .read(move |tx| {
                let Some((user, expires_ms)) = rows::token_owner(tx, &stored, now_ms)? else {
                    return Ok(None);
                };
                let grants = rows::grants_of(tx, user.id)?;
                Ok(Some((user, grants, expires_ms)))
            })
            .await?;
        let Some((user, grants, expires_ms)) = found else {
            memory.forget(&digest);
            return Ok(None);
        };
        let principal = Arc::new(Principal::new(&user, grants, self.default_permission()));
        let known = Known {
            principal: Arc::clone(&principal),
            generation,
            password: String::new(),
            expires_ms,
        };
        memory.remember(digest, known);
        Ok(Some(principal))
    }

    /// Whether a password fits what it is checked against; takes as long where there is nothing to check against.
    pub(super) async fn log_in(&self, tried: [u8; 32], password: &str, hash: Option<String>) -> Result<bool> {
        let (throttle, password) = (Arc::clone(&self.users().throttle), password.to_owned());
        let checked = self.off_the_async_threads(move || {
            // Of those that came at once, few get here before the first are known to be wrong.
            if let Some(wait) = throttle.wait(&tried) {
                return Err(too_many(wait));
            }
            let right = match hash {
                Some(hash) => password::verify(&password, &hash),
                None => {
                    password::pretend(&password);
                    false
                }
            };
            if !right {
                throttle.failed(tried);
            }
            Ok(right)
        });
        checked.await?
    }

    /// What a new password is checked against from now on.
    pub(super) async fn hash(&self, password: &str) -> Result<String> {
        let password = password.to_owned();
        self.off_the_async_threads(move || password::hash(&password))
            .await?
    }

    async fn off_the_async_threads<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let failed = |what: &dyn std::fmt::Display| {
            TrackingError::InvalidState(format!("the password was not checked: {what}"))
        };
        let checks = Arc::clone(&self.users().checks);
        let permit = checks.acquire_owned().await.map_err(|error| failed(&error))?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(|error| failed(&error))
    }
}
