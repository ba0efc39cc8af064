//! Settings of authentication, from MLflow's `basic_auth.ini` or from the environment.

use std::fmt;
use std::path::Path;

use super::Permission;
use crate::tracking::{Result, TrackingError};

const ADMIN_USERNAME: &str = "TIDEMILL_ADMIN_USERNAME";
const ADMIN_PASSWORD: &str = "TIDEMILL_ADMIN_PASSWORD";

/// Settings of authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthOptions {
    /// What anybody may do in the default workspace where no grant says otherwise.
    pub default_permission: Permission,
    /// The administrator that is added at the start if there is none of this name.
    pub admin_username: String,
    /// The administrator's first password; without one there must be an administrator already.
    pub admin_password: Option<String>,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            default_permission: Permission::Read,
            admin_username: "admin".to_owned(),
            admin_password: None,
        }
    }
}

impl fmt::Debug for AuthOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthOptions")
            .field("default_permission", &self.default_permission)
            .field("admin_username", &self.admin_username)
            .finish_non_exhaustive()
    }
}

impl AuthOptions {
    /// Reads a file in the form of MLflow's `basic_auth.ini`, if one is named; `TIDEMILL_ADMIN_USERNAME` and
    /// `TIDEMILL_ADMIN_PASSWORD` in the environment go before what it says.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let mut options = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    TrackingError::invalid(format!(
                        "the authentication settings `{}` cannot be read: {error}",
                        path.display()
                    ))
                })?;
                Self::from_ini(&text)?
            }
            None => Self::default(),
        };
        let given = |name| {
            std::env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        if let Some(name) = given(ADMIN_USERNAME) {
            options.admin_username = name;
        }
        if let Some(password) = given(ADMIN_PASSWORD) {
            options.admin_password = Some(password);
        }
        Ok(options)
    }

    /// Reads the text of a `basic_auth.ini`. Where MLflow keeps its database, and functions that it would call, do not matter here.
    pub fn from_ini(text: &str) -> Result<Self> {
        let mut options = Self::default();
        let mut section = String::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.trim().clone_into(&mut section);
                continue;
            }
            if section != "mlflow" {
                continue;
            }
            let Some((name, value)) = line.split_once(['=', ':']) else {
                return Err(TrackingError::invalid(format!(
                    "line {} of the authentication settings is `{line}`: expected `name = value`",
                    number + 1
                )));
            };
            let value = value.trim();
            match name.trim() {
                "default_permission" => options.default_permission = value.parse()?,
                "admin_username" => value.clone_into(&mut options.admin_username),
                "admin_password" => options.admin_password = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mlflows_settings_are_read_and_foreign_sections_skipped() {
        let text = "# note\n[other]\nadmin_username = no\n[mlflow]\ndefault_permission = NO_PERMISSIONS\n\
                    database_uri = sqlite:///basic_auth.db\nadmin_username = root\nadmin_password = password=1234\n";
        let options = AuthOptions::from_ini(text).unwrap();
        assert_eq!(options.default_permission, Permission::NoPermissions);
        assert_eq!(options.admin_username, "root");
        assert_eq!(options.admin_password.as_deref(), Some("password=1234"));
        assert!(
            !format!("{options:?}").contains("1234"),
            "a password is not printed"
        );
        assert!(AuthOptions::from_ini("[mlflow]\ndefault_permission = ALL\n").is_err());
        assert!(AuthOptions::from_ini("[mlflow]\nwhat\n").is_err());
    }
}
