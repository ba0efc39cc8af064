//! Users: added, looked up, changed, removed.

use tidemill_store::users::{self as rows, Grant, User};
use tidemill_store::{ReadTx, StoreError};

use super::{Outcome, Permission, ServerRole, must, password, user_row};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// A user, without what the password is checked against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserInfo {
    /// The number.
    pub id: i64,
    /// The name.
    pub name: String,
    /// What the user may do everywhere.
    pub role: ServerRole,
    /// What the user alone is granted.
    pub own: Vec<UserPermission>,
}

/// What a user is permitted through one of their roles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserPermission {
    /// The role.
    pub role: i64,
    /// The role's name.
    pub role_name: String,
    /// The role's workspace.
    pub workspace: String,
    /// Such as `experiment`.
    pub resource_type: String,
    /// An id or a name; `*` for every one.
    pub resource_pattern: String,
    /// What is permitted.
    pub permission: String,
}

impl From<Grant> for UserPermission {
    fn from(grant: Grant) -> Self {
        Self {
            role: grant.role,
            role_name: grant.role_name,
            workspace: grant.workspace,
            resource_type: grant.resource_type,
            resource_pattern: grant.resource_pattern,
            permission: grant.permission,
        }
    }
}

fn info(tx: &ReadTx<'_>, user: User) -> std::result::Result<UserInfo, StoreError> {
    let own = rows::own_grants(tx, user.id)?;
    Ok(UserInfo {
        id: user.id,
        role: user.role.parse().unwrap_or(ServerRole::Viewer),
        name: user.name,
        own: own.into_iter().map(UserPermission::from).collect(),
    })
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(TrackingError::invalid("Username cannot be empty."));
    }
    // HTTP Basic ends the name at the first colon.
    if name.len() > 255 || name.contains(':') || name.chars().any(char::is_control) {
        return Err(TrackingError::invalid(format!(
            "Invalid username '{name}': expected at most 255 bytes without colons and control characters"
        )));
    }
    Ok(())
}

fn is_last_admin(tx: &ReadTx<'_>, name: &str) -> std::result::Result<bool, StoreError> {
    let admin = ServerRole::Admin.as_str();
    let mut admins = rows::list(tx)?.into_iter().filter(|user| user.role == admin);
    Ok(admins.next().is_some_and(|user| user.name == name) && admins.next().is_none())
}

fn last_admin() -> TrackingError {
    TrackingError::InvalidState("this is the only administrator: name another one first".to_owned())
}

impl Tracking {
    /// What anybody may do in the default workspace where no grant says otherwise.
    pub fn default_permission(&self) -> Permission {
        let auth = self.options().auth.as_ref();
        auth.map_or(Permission::Manage, |auth| auth.default_permission)
    }

    /// Whether requests have to say who sends them.
    pub fn requires_users(&self) -> bool {
        self.options().auth.is_some()
    }

    /// Adds the administrator of the settings if there is no user of that name. To be called at the start of a server; does
    /// nothing where users are not required.
    pub async fn prepare_users(&self) -> Result<()> {
        let Some(auth) = self.options().auth.clone() else {
            return Ok(());
        };
        let name = auth.admin_username.clone();
        let (found, admins) = self
            .store()
            .read(move |tx| {
                let admin = ServerRole::Admin.as_str();
                let admins = rows::list(tx)?.into_iter().any(|user| user.role == admin);
                Ok((rows::find(tx, &name)?, admins))
            })
            .await?;
        if found.is_some() || (admins && auth.admin_password.is_none()) {
            return Ok(());
        }
        let Some(password) = auth.admin_password else {
            return Err(TrackingError::invalid(
                "there is no administrator yet: give a first password in `TIDEMILL_ADMIN_PASSWORD`, or as `admin_password` \
                 in the file that `--auth-config` names",
            ));
        };
        let user = self
            .add_user(&auth.admin_username, &password, ServerRole::Admin)
            .await?;
        tracing::info!(name = user.name, "added the administrator");
        Ok(())
    }

    /// Adds a user without any grants.
    pub async fn create_user(&self, name: &str, password: &str) -> Result<UserInfo> {
        self.add_user(name, password, ServerRole::Viewer).await
    }

    async fn add_user(&self, name: &str, password: &str, role: ServerRole) -> Result<UserInfo> {
        check_name(name)?;
        password::check_new(password)?;
        let (hash, now_ms) = (self.hash(password).await?, self.now_ms());
        let name = name.to_owned();
        self.change_users(move |tx| {
            let created = rows::create(tx, &name, &hash, role.as_str(), now_ms)?;
            let user = must!(created.ok_or_else(|| {
                TrackingError::AlreadyExists(format!("User (username={name}) already exists."))
            }));
            info(tx, user).map(Ok)
        })
        .await
    }

    /// A user.
    pub async fn user(&self, name: &str) -> Result<UserInfo> {
        let name = name.to_owned();
        let found = self.store().read(move |tx| -> Outcome<UserInfo> {
            let user = must!(user_row(tx, &name)?);
            info(tx, user).map(Ok)
        });
        found.await?
    }

    /// All users, in the order in which they were added.
    pub async fn list_users(&self) -> Result<Vec<UserInfo>> {
        let list = self.store().read(|tx| {
            let users = rows::list(tx)?;
            users.into_iter().map(|user| info(tx, user)).collect()
        });
        Ok(list.await?)
    }

    /// All that a user is permitted, through whichever role.
    pub async fn permissions_of_user(&self, name: &str) -> Result<(UserInfo, Vec<UserPermission>)> {
        let name = name.to_owned();
        let found = self.store().read(move |tx| -> Outcome<_> {
            let user = must!(user_row(tx, &name)?);
            let grants = rows::grants_of(tx, user.id)?;
            let grants = grants.into_iter().map(UserPermission::from).collect();
            Ok(Ok((info(tx, user)?, grants)))
        });
        found.await?
    }

    /// Gives a user another password. Where `current` is given it must be the one that is replaced.
    pub async fn set_password(&self, name: &str, password: &str, current: Option<&str>) -> Result<()> {
        password::check_new(password)?;
        if let Some(current) = current {
            let wanted = name.to_owned();
            let user = self.store().read(move |tx| user_row(tx, &wanted)).await??;
            if !self
                .log_in(self.users().stands_for(name), current, Some(user.password))
                .await?
            {
                return Err(TrackingError::invalid("Current password does not match."));
            }
            if current == password {
                return Err(TrackingError::invalid(
                    "New password must differ from the current password.",
                ));
            }
        }
        let (name, hash) = (name.to_owned(), self.hash(password).await?);
        self.change_users(move |tx| {
            must!(user_row(tx, &name)?);
            rows::set_password(tx, &name, &hash)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Gives a user another role on the server.
    pub async fn set_server_role(&self, name: &str, role: ServerRole) -> Result<()> {
        let name = name.to_owned();
        self.change_users(move |tx| {
            must!(user_row(tx, &name)?);
            if role != ServerRole::Admin && is_last_admin(tx, &name)? {
                return Ok(Err(last_admin()));
            }
            rows::set_role(tx, &name, role.as_str())?;
            Ok(Ok(()))
        })
        .await
    }

    /// Makes a user an administrator, or no longer one.
    pub async fn set_admin(&self, name: &str, admin: bool) -> Result<()> {
        if admin {
            return self.set_server_role(name, ServerRole::Admin).await;
        }
        // Who was no administrator keeps their role.
        match self.user(name).await?.role {
            ServerRole::Admin => self.set_server_role(name, ServerRole::Viewer).await,
            _ => Ok(()),
        }
    }

    /// Removes a user with tokens and grants.
    pub async fn delete_user(&self, caller: &Caller, name: &str) -> Result<()> {
        if caller.user == name {
            return Err(TrackingError::invalid(
                "Users cannot delete their own account. Ask another admin to delete this user instead.",
            ));
        }
        let name = name.to_owned();
        self.change_users(move |tx| {
            must!(user_row(tx, &name)?);
            if is_last_admin(tx, &name)? {
                return Ok(Err(last_admin()));
            }
            rows::delete(tx, &name)?;
            Ok(Ok(()))
        })
        .await
    }

    /// One change about users, after which what is remembered of them is stale.
    pub(crate) async fn change_users<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut tidemill_store::Tx<'_>) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let changed = self.store().write(change).await;
        // Also after a failure: it may have been stored.
        self.users().changed();
        changed?
    }
}
