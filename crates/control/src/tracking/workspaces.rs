//! Workspaces: names of experiments and models are unique within one.

use tidemill_store::workspaces as rows;
use tidemill_store::{ReadTx, StoreError, users, workspaces::Workspace};

use super::{DEFAULT_WORKSPACE, Result, Tracking, TrackingError};

/// The name that asks for everything in a deleted workspace to go to the default one.
const SET_DEFAULT: &str = "SET_DEFAULT";
const RESTRICT: &str = "RESTRICT";
const CASCADE: &str = "CASCADE";

/// Names that mean something else in a path.
const RESERVED: [&str; 4] = ["workspaces", "api", "ajax-api", "static-files"];

fn check_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    if !(2..=63).contains(&length) {
        return Err(TrackingError::invalid(format!(
            "Workspace name '{name}' must be between 2 and 63 characters."
        )));
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.chars().all(|c| plain(c) || c == '-')
        && name.starts_with(plain)
        && name.ends_with(plain)
        && !name.contains("--");
    if !fits {
        return Err(TrackingError::invalid(format!(
            "Workspace name '{name}' must match the pattern ^(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?$ \
             (lowercase alphanumeric with optional internal hyphens)."
        )));
    }
    if RESERVED.contains(&name) {
        return Err(TrackingError::invalid(format!(
            "Workspace name '{name}' is reserved and cannot be used."
        )));
    }
    Ok(())
}

fn check_root(root: Option<String>) -> Result<Option<String>> {
    let Some(root) = root
        .map(|root| root.trim().to_owned())
        .filter(|root| !root.is_empty())
    else {
        return Ok(None);
    };
    if root.contains('#') || root.contains(';') {
        return Err(TrackingError::invalid(
            "'default_artifact_root' URL can't include fragments or params.",
        ));
    }
    if root.contains("..") || root.chars().any(char::is_control) || root.len() > 2048 {
        return Err(TrackingError::invalid(format!("Invalid artifact root: '{root}'")));
    }
    Ok(Some(root))
}

fn missing(name: &str) -> TrackingError {
    TrackingError::not_found(format!("Workspace '{name}' not found"))
}

fn found(tx: &ReadTx<'_>, name: &str) -> std::result::Result<Result<Workspace>, StoreError> {
    Ok(rows::find(tx, name)?.ok_or_else(|| missing(name)))
}

impl Tracking {
    /// All workspaces.
    pub async fn list_workspaces(&self) -> Result<Vec<Workspace>> {
        Ok(self.store().read(rows::list).await?)
    }

    /// A workspace.
    pub async fn workspace(&self, name: &str) -> Result<Workspace> {
        if name != DEFAULT_WORKSPACE {
            check_name(name)?;
        }
        let name = name.to_owned();
        self.store().read(move |tx| found(tx, &name)).await?
    }

    /// Adds a workspace.
    pub async fn create_workspace(&self, workspace: Workspace) -> Result<Workspace> {
        if workspace.name == DEFAULT_WORKSPACE {
            return Err(TrackingError::invalid(format!(
                "The '{DEFAULT_WORKSPACE}' workspace is reserved and cannot be created"
            )));
        }
        check_name(&workspace.name)?;
        let workspace = Workspace {
            default_artifact_root: check_root(workspace.default_artifact_root)?,
            ..workspace
        };
        let (new, now_ms) = (workspace.clone(), self.now_ms());
        if !self
            .store()
            .write(move |tx| rows::create(tx, &new, now_ms))
            .await?
        {
            return Err(TrackingError::AlreadyExists(format!(
                "Workspace '{}' already exists.",
                workspace.name
            )));
        }
        Ok(workspace)
    }

    /// Changes what is said of a workspace. An empty artifact root takes the one that was there away.
    pub async fn update_workspace(
        &self,
        name: &str,
        description: Option<String>,
        default_artifact_root: Option<String>,
    ) -> Result<Workspace> {
        if name != DEFAULT_WORKSPACE {
            check_name(name)?;
        }
        if description.is_none() && default_artifact_root.is_none() {
            return Err(TrackingError::invalid(
                "Workspace update must have at least one key",
            ));
        }
        let changes_root = default_artifact_root.is_some();
        let root = check_root(default_artifact_root)?;
        let name = name.to_owned();
        let changed = self.store().write(move |tx| {
            let mut workspace = match found(tx, &name)? {
                Ok(workspace) => workspace,
                Err(refusal) => return Ok(Err(refusal)),
            };
            workspace.description = description.or(workspace.description);
            if changes_root {
                workspace.default_artifact_root = root;
            }
            rows::update(tx, &workspace)?;
            Ok(Ok(workspace))
        });
        changed.await?
    }

    /// Removes a workspace: an empty one (`RESTRICT`, the default), or one whose contents go to the default workspace (`SET_DEFAULT`).
    pub async fn delete_workspace(&self, name: &str, mode: Option<&str>) -> Result<()> {
        if name == DEFAULT_WORKSPACE {
            return Err(TrackingError::invalid(format!(
                "The '{DEFAULT_WORKSPACE}' workspace is reserved and cannot be deleted"
            )));
        }
        check_name(name)?;
        let moves = match mode.unwrap_or(RESTRICT) {
            RESTRICT => false,
            SET_DEFAULT => true,
            CASCADE => {
                return Err(TrackingError::NotImplemented(
                    "workspaces are not deleted together with what they hold: delete that first, or use `mode=SET_DEFAULT`"
                        .to_owned(),
                ));
            }
            mode => {
                return Err(TrackingError::invalid(format!(
                    "Invalid deletion mode '{mode}'. Must be one of: {SET_DEFAULT}, {CASCADE}, {RESTRICT}"
                )));
            }
        };
        let name = name.to_owned();
        self.change_users(move |tx| {
            if let Err(refusal) = found(tx, &name)? {
                return Ok(Err(refusal));
            }
            for table in rows::TABLES {
                let count = rows::count(tx, table, &name)?;
                if count > 0 && !moves {
                    return Ok(Err(TrackingError::InvalidState(format!(
                        "Cannot delete workspace '{name}': table '{table}' still contains {count} resource(s). \
                         Remove or reassign them before deleting the workspace."
                    ))));
                }
                let shared = rows::shared_names(tx, table, &name, DEFAULT_WORKSPACE)?;
                if !shared.is_empty() {
                    return Ok(Err(TrackingError::InvalidState(format!(
                        "Cannot reassign resources from workspace '{name}' to '{DEFAULT_WORKSPACE}': the names {shared:?} \
                         of `{table}` already exist there. Rename or remove the conflicting resources before retrying."
                    ))));
                }
            }
            rows::reassign(tx, &name, DEFAULT_WORKSPACE)?;
            users::delete_roles_of_workspace(tx, &name)?;
            rows::delete(tx, &name)?;
            Ok(Ok(()))
        })
        .await?;
        self.forget_places();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspaces_name_fits_into_a_path_and_a_host() {
        for good in ["team-a", "a1", "x-y-z"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "a",
            "Team",
            "-a",
            "a-",
            "a--b",
            "a b",
            "api",
            "ä1",
            &"x".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
