//! Permissions in MLflow's words, and roles in ours.

use std::str::FromStr;

use crate::tracking::TrackingError;

/// What is permitted on a resource. Ordered: each permits what the one before it permits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Permission {
    /// Nothing, whatever else is granted.
    Deny,
    /// Nothing.
    NoPermissions,
    /// To look at it.
    Read,
    /// To work with it.
    Use,
    /// To change it.
    Edit,
    /// To delete it, and to say who may do what.
    Manage,
}

/// What somebody wants to do to a resource.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Need {
    /// Look at it.
    Read,
    /// Change it.
    Update,
    /// Delete or restore it.
    Delete,
    /// Say who may do what.
    Manage,
}

impl Permission {
    /// MLflow's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "DENY",
            Self::NoPermissions => "NO_PERMISSIONS",
            Self::Read => "READ",
            Self::Use => "USE",
            Self::Edit => "EDIT",
            Self::Manage => "MANAGE",
        }
    }

    /// Whether it is enough.
    pub fn allows(self, need: Need) -> bool {
        match need {
            Need::Read => self >= Self::Read,
            Need::Update => self >= Self::Edit,
            Need::Delete | Need::Manage => self >= Self::Manage,
        }
    }

    /// Whether the resource may be worked with, as a member of its workspace does.
    pub fn can_use(self) -> bool {
        self >= Self::Use
    }
}

/// MLflow's words, and the names of roles that mean the same.
impl FromStr for Permission {
    type Err = TrackingError;

    fn from_str(text: &str) -> Result<Self, TrackingError> {
        Ok(match text {
            "READ" | "viewer" => Self::Read,
            "USE" => Self::Use,
            "EDIT" | "editor" => Self::Edit,
            "MANAGE" | "manager" => Self::Manage,
            "NO_PERMISSIONS" => Self::NoPermissions,
            "DENY" => Self::Deny,
            _ => {
                return Err(TrackingError::invalid(format!(
                    "Invalid permission '{text}'. Valid permissions are: \
                     ('READ', 'USE', 'EDIT', 'MANAGE', 'NO_PERMISSIONS', 'DENY')"
                )));
            }
        })
    }
}

/// What a user may do everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ServerRole {
    /// What is granted, and what everybody may.
    Viewer,
    /// Also change whatever no grant says otherwise of, and steer the loop.
    Editor,
    /// Also delete it.
    Manager,
    /// Everything, users included.
    Admin,
}

impl ServerRole {
    /// The name of the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Manager => "manager",
            Self::Admin => "admin",
        }
    }

    /// What it permits on a resource that no grant speaks of.
    pub fn floor(self) -> Permission {
        match self {
            Self::Viewer => Permission::NoPermissions,
            Self::Editor => Permission::Edit,
            Self::Manager | Self::Admin => Permission::Manage,
        }
    }
}

impl FromStr for ServerRole {
    type Err = TrackingError;

    fn from_str(text: &str) -> Result<Self, TrackingError> {
        Ok(match text {
            "viewer" => Self::Viewer,
            "editor" => Self::Editor,
            "manager" => Self::Manager,
            "admin" => Self::Admin,
            _ => {
                return Err(TrackingError::invalid(format!(
                    "Invalid role '{text}'. Valid roles are: ('viewer', 'editor', 'manager', 'admin')"
                )));
            }
        })
    }
}
