//! What single users are granted: MLflow's permissions on experiments, registered models and workspaces, and the general ones of 3.17.

use tidemill_store::users as rows;
use tidemill_store::{StoreError, Tx};

use super::{EVERY, EXPERIMENT, Outcome, Permission, REGISTERED_MODEL, WORKSPACE, must, user_row};
use crate::tracking::{Caller, Result, Tracking, TrackingError};

/// What one user is granted on one resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantInfo {
    /// The user's number.
    pub user_id: i64,
    /// What is permitted.
    pub permission: String,
}

/// A user and a resource, as one who looks at them from a workspace names them.
struct Target {
    user: String,
    /// `None` for an experiment, whose number says which it is wherever it is.
    looked_up_in: Option<String>,
    workspace: String,
    resource_type: String,
    resource: String,
}

impl Target {
    fn missing(&self) -> TrackingError {
        let (user, resource, workspace) = (&self.user, &self.resource, &self.workspace);
        TrackingError::not_found(match self.resource_type.as_str() {
            EXPERIMENT => {
                format!("Experiment permission with experiment_id={resource} and username={user} not found")
            }
            REGISTERED_MODEL => format!(
                "Registered model permission with workspace={workspace}, name={resource} and username={user} not found"
            ),
            WORKSPACE => {
                format!("Workspace permission does not exist for workspace='{workspace}', username='{user}'")
            }
            kind => format!(
                "Permission for user={user} on resource_type={kind}, resource_id={resource} not found."
            ),
        })
    }

    fn taken(&self) -> TrackingError {
        let (user, resource, workspace) = (&self.user, &self.resource, &self.workspace);
        TrackingError::AlreadyExists(match self.resource_type.as_str() {
            EXPERIMENT => {
                format!("Experiment permission (experiment_id={resource}, username={user}) already exists.")
            }
            REGISTERED_MODEL => format!(
                "Registered model permission with workspace={workspace}, name={resource} and username={user} \
                 already exists."
            ),
            kind => {
                format!(
                    "Permission for user={user} on resource_type={kind}, resource_id={resource} already exists."
                )
            }
        })
    }
}

impl Tracking {
    /// Where a grant on a resource stands: with the experiment, else in the caller's workspace.
    async fn target(
        &self,
        caller: &Caller,
        user: &str,
        resource_type: &str,
        resource: &str,
    ) -> Result<Target> {
        let of_experiment = resource_type == EXPERIMENT && resource != EVERY;
        let place = if of_experiment {
            self.place_of_experiment(resource).await?
        } else {
            None
        };
        Ok(Target {
            user: user.to_owned(),
            looked_up_in: (!of_experiment).then(|| caller.workspace.clone()),
            workspace: place.map_or_else(|| caller.workspace.clone(), |place| place.workspace),
            resource_type: resource_type.to_owned(),
            resource: resource.to_owned(),
        })
    }

    /// Grants a user something that they were granted nothing on.
    pub async fn create_grant(
        &self,
        caller: &Caller,
        user: &str,
        resource_type: &str,
        resource: &str,
        permission: &str,
    ) -> Result<GrantInfo> {
        let permission: Permission = permission.parse()?;
        let target = self.target(caller, user, resource_type, resource).await?;
        self.change_users(move |tx| {
            let user = must!(user_row(tx, &target.user)?);
            let (inside, kind, name) = (
                target.looked_up_in.as_deref(),
                &target.resource_type,
                &target.resource,
            );
            if rows::own_grant(tx, user.id, inside, kind, name)?.is_some() {
                return Ok(Err(target.taken()));
            }
            rows::grant(tx, user.id, &target.workspace, kind, name, permission.as_str())?;
            Ok(Ok(granted(user.id, permission)))
        })
        .await
    }

    /// What a user is granted on a resource alone.
    pub async fn own_grant(
        &self,
        caller: &Caller,
        user: &str,
        resource_type: &str,
        resource: &str,
    ) -> Result<GrantInfo> {
        let target = self.target(caller, user, resource_type, resource).await?;
        let found = self.store().read(move |tx| -> Outcome<GrantInfo> {
            let user = must!(user_row(tx, &target.user)?);
            let (inside, kind, name) = (
                target.looked_up_in.as_deref(),
                &target.resource_type,
                &target.resource,
            );
            let found = rows::own_grant(tx, user.id, inside, kind, name)?;
            Ok(found.ok_or_else(|| target.missing()).map(|found| GrantInfo {
                user_id: user.id,
                permission: found.permission,
            }))
        });
        found.await?
    }

    /// Changes what a user is granted on a resource alone.
    pub async fn update_grant(
        &self,
        caller: &Caller,
        user: &str,
        resource_type: &str,
        resource: &str,
        permission: &str,
    ) -> Result<()> {
        let permission: Permission = permission.parse()?;
        let target = self.target(caller, user, resource_type, resource).await?;
        self.change_users(move |tx| {
            let user = must!(user_row(tx, &target.user)?);
            let (inside, kind, name) = (
                target.looked_up_in.as_deref(),
                &target.resource_type,
                &target.resource,
            );
            let found =
                must!(rows::own_grant(tx, user.id, inside, kind, name)?.ok_or_else(|| target.missing()));
            rows::change_permission(tx, found.id, permission.as_str())?;
            Ok(Ok(()))
        })
        .await
    }

    /// Takes back what a user was granted on a resource alone.
    pub async fn delete_grant(
        &self,
        caller: &Caller,
        user: &str,
        resource_type: &str,
        resource: &str,
    ) -> Result<()> {
        let target = self.target(caller, user, resource_type, resource).await?;
        self.change_users(move |tx| {
            let user = must!(user_row(tx, &target.user)?);
            let inside = target.looked_up_in.as_deref();
            if !rows::revoke(tx, user.id, inside, &target.resource_type, &target.resource)? {
                return Ok(Err(target.missing()));
            }
            Ok(Ok(()))
        })
        .await
    }

    /// Grants a user something on everything in a workspace, in place of what was granted before.
    pub async fn set_workspace_grant(
        &self,
        workspace: &str,
        user: &str,
        permission: &str,
    ) -> Result<GrantInfo> {
        let permission: Permission = permission.parse()?;
        self.workspace(workspace).await?;
        let (workspace, user) = (workspace.to_owned(), user.to_owned());
        self.change_users(move |tx| {
            let user = must!(user_row(tx, &user)?);
            rows::grant(tx, user.id, &workspace, WORKSPACE, EVERY, permission.as_str())?;
            Ok(Ok(granted(user.id, permission)))
        })
        .await
    }

    /// Who is granted something on everything in a workspace alone.
    pub async fn workspace_grants(&self, workspace: &str) -> Result<Vec<GrantInfo>> {
        let workspace = workspace.to_owned();
        let found = self
            .store()
            .read(move |tx| rows::owners_of(tx, &workspace, WORKSPACE, EVERY));
        let found = found.await?.into_iter();
        Ok(found
            .map(|(user_id, permission)| GrantInfo { user_id, permission })
            .collect())
    }

    /// Who gets what is about to be added: nobody where users are not required.
    pub(crate) fn creator<'c>(&self, caller: &'c Caller) -> Option<&'c str> {
        let named = self.requires_users() && !caller.user.is_empty();
        named.then_some(caller.user.as_str())
    }
}

/// Whoever adds an experiment or a model may do everything to it: part of the change that adds it. [`Memory::changed`] follows.
///
/// [`Memory::changed`]: super::Memory::changed
pub(crate) fn give_to_creator(
    tx: &mut Tx<'_>,
    creator: Option<&str>,
    workspace: &str,
    resource_type: &str,
    resource: &str,
) -> std::result::Result<(), StoreError> {
    let Some(name) = creator else { return Ok(()) };
    // A user who is removed meanwhile gets nothing.
    let Some(user) = rows::find(tx, name)? else {
        return Ok(());
    };
    let all = Permission::Manage.as_str();
    rows::grant(tx, user.id, workspace, resource_type, resource, all)
}

fn granted(user_id: i64, permission: Permission) -> GrantInfo {
    GrantInfo {
        user_id,
        permission: permission.as_str().to_owned(),
    }
}
