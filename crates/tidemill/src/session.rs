//! A command's way to its project: through the server that runs, or else by opening the data folder for the command's own time.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use tidemill_store::{Database, StoreError};

use crate::cli::Target;
use crate::client::Client;
use crate::compose::{self, ADDRESS_FILE, App, ClockChoice, ProjectFiles, Running, Settings};

/// A client, and the server behind it if it is this command's own.
pub struct Session {
    /// Talks to the server.
    pub client: Client,
    own: Option<Running>,
}

impl Session {
    /// Finds the server, or becomes it.
    pub async fn open(target: &Target) -> Result<(Self, Option<ProjectFiles>)> {
        if let Some(url) = &target.url {
            let project = compose::read_project(&target.project.project, target.project.data.as_deref()).ok();
            return Ok((
                Self {
                    client: Client::signed_in(url)?,
                    own: None,
                },
                project,
            ));
        }
        let project = compose::read_project(&target.project.project, target.project.data.as_deref())?;
        match compose::open(&project, ClockChoice::AsStored).await {
            Ok(app) => Ok((Self::own(app).await?, Some(project))),
            Err(error) if is_locked(&error) => match address_of(&project.data) {
                Some(url) => Ok((
                    Self {
                        client: Client::signed_in(&url)?,
                        own: None,
                    },
                    Some(project),
                )),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// [`Session::open`] for commands that need no project: without one, a data folder is opened for tracking alone.
    pub async fn open_tracking(target: &Target, database: &Database) -> Result<Self> {
        if target.url.is_some() || compose::has_project(&target.project.project) {
            return Ok(Self::open(target).await?.0);
        }
        let data = target
            .project
            .data
            .clone()
            .unwrap_or_else(|| PathBuf::from("tidemill-data"));
        let settings = Settings {
            database: database.clone(),
            ..Settings::default()
        };
        match compose::open_without_project(&data, &settings).await {
            Ok(app) => Self::own(app).await,
            Err(error) if is_locked(&error) => match address_of(&data) {
                Some(url) => Ok(Self {
                    client: Client::signed_in(&url)?,
                    own: None,
                }),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Serves an opened project on a free port, for this command alone.
    pub async fn own(app: App) -> Result<Self> {
        let own = compose::serve(app, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false).await?;
        Ok(Self {
            client: Client::new(&own.url())?,
            own: Some(own),
        })
    }

    /// Closes the data folder, if this command opened it.
    pub async fn close(self) -> Result<()> {
        match self.own {
            Some(own) => own.stop().await,
            None => Ok(()),
        }
    }

    /// The loop itself, for work that has no place on the wire; only where no server runs.
    pub fn local(&self) -> Result<&tidemill_control::Control> {
        match &self.own {
            Some(Running {
                control: Some(control),
                ..
            }) => Ok(control),
            _ => bail!(
                "this needs the data folder for itself; stop the server at {} first",
                self.client.base()
            ),
        }
    }
}

/// Whether the error says that another server uses the data folder.
pub fn is_locked(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|c| matches!(c.downcast_ref::<StoreError>(), Some(StoreError::Locked { .. })))
}

fn address_of(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join(ADDRESS_FILE)).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    value["url"].as_str().map(str::to_owned)
}
