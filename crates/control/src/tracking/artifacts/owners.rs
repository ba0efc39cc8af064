//! Whose the artifacts at a place are: experiments', by where these, their runs and their logged models are stored.
//!
//! What a request names is turned into a [`super::Place`] by the functions that later read it, and that place is compared with the
//! places of what is stored. Texts are never compared: one place has many spellings.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use tidemill_store::objects::Folder;
use tidemill_store::users as rows;

use super::super::registry::ModelsUri;
use super::super::{Caller, DEFAULT_WORKSPACE, Result, Tracking, TrackingError, locations};
use super::place::settled;
use super::{Place, Root, safe_path};
use crate::users::Place as Owner;

/// Whose the artifacts at a place are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Owners {
    /// The server does not read there, or nobody has anything there.
    Elsewhere,
    /// These experiments', each of which has a word in it.
    These(Vec<Owner>),
    /// No experiment's, though the server reads there: administrators' alone.
    Nobody,
}

/// What a source of a model version names, as those who read it understand it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Registered models of the caller's workspace.
    pub models: Vec<String>,
    /// Logged models, by their ids.
    pub logged_models: Vec<String>,
    /// Runs, by their ids.
    pub runs: Vec<String>,
    /// Whose the files are.
    pub owners: Owners,
}

/// Where something lies in fact. Two places are the same if these are.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Spot {
    kind: Kind,
    names: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    /// The content-addressed objects.
    Objects,
    /// This machine's disk.
    Disk,
    /// A bucket of a server.
    Bucket(String),
}

impl Spot {
    fn of(place: &Place) -> Self {
        let names = |path: &str| -> Vec<String> {
            let names = path.split('/').filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        };
        match place {
            Place::Object(path) => Self {
                kind: Kind::Objects,
                names: names(path),
            },
            Place::File(folder, path) => Self {
                kind: Kind::Disk,
                names: names(&settled(&folder.root().join(path)).to_string_lossy()),
            },
            Place::Bucket(bucket, path) => {
                let (bucket, key) = bucket.whole_key(path);
                Self {
                    kind: Kind::Bucket(bucket),
                    names: names(&key),
                }
            }
        }
    }

    /// Whether the other is this, or below it.
    fn holds(&self, other: &Self) -> bool {
        self.kind == other.kind && other.names.starts_with(&self.names)
    }
}

/// Where an experiment, a run or a logged model keeps its artifacts.
#[derive(Clone, Debug)]
struct Ground {
    spot: Spot,
    owner: Owner,
}

/// The grounds of all experiments, as they were at a time.
#[derive(Debug)]
pub(crate) struct Grounds {
    stamp: (i64, i64),
    all: Arc<Vec<Ground>>,
}

fn owners_of<'a>(grounds: impl Iterator<Item = &'a Ground>) -> Vec<Owner> {
    let mut owners: Vec<Owner> = Vec::new();
    for ground in grounds {
        if !owners.contains(&ground.owner) {
            owners.push(ground.owner.clone());
        }
    }
    owners
}

/// A place, unless the server does not read there or what it is named by is missing.
fn unless_elsewhere(placed: Result<Place>) -> Result<Option<Place>> {
    match placed {
        Ok(place) => Ok(Some(place)),
        Err(TrackingError::Denied(_) | TrackingError::NotImplemented(_) | TrackingError::NotFound(_)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Tracking {
    /// Whose the artifacts at a path of the proxy are, as the caller writes it. Of the whole proxy nobody's.
    pub async fn owners_of_proxied(&self, caller: &Caller, path: &str) -> Result<Owners> {
        let place = self.proxy_place(caller, &safe_path(path)?)?;
        self.owners_at(&Spot::of(&place)).await
    }

    /// What a source of a model version names.
    pub async fn origin_of(&self, caller: &Caller, source: &str) -> Result<Origin> {
        let mut origin = Origin {
            models: Vec::new(),
            logged_models: Vec::new(),
            runs: Vec::new(),
            owners: Owners::Elsewhere,
        };
        if source.is_empty() {
            return Ok(origin);
        }
        // Two read it: one when the version is registered, the other when its files are. What either finds counts.
        match super::super::registry::models_uri(source)? {
            Some(ModelsUri::Id(id)) => origin.logged_models.push(id),
            Some(ModelsUri::Version(name, _) | ModelsUri::Alias(name, _) | ModelsUri::Stage(name, _)) => {
                origin.models.push(name);
            }
            None => {}
        }
        let root = Root::of(source)?;
        match &root {
            Root::Run(id, _) => origin.runs.push(id.clone()),
            Root::Model(id, _) => origin.logged_models.push(id.clone()),
            _ => {}
        }
        origin.owners = match unless_elsewhere(self.place_of(caller, source, "").await)? {
            Some(place) => self.owners_at(&Spot::of(&place)).await?,
            // A run that is not there yet will be somebody's.
            None if matches!(root, Root::Run(..)) && !self.run_is_here(caller, &origin.runs).await? => {
                Owners::Nobody
            }
            None => Owners::Elsewhere,
        };
        Ok(origin)
    }

    async fn run_is_here(&self, caller: &Caller, runs: &[String]) -> Result<bool> {
        for run_id in runs {
            match self.artifact_root_of_run(caller, run_id).await {
                Ok(_) => {}
                Err(TrackingError::NotFound(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Who has something at, above or below the place that a client wants a new experiment to keep its artifacts in.
    pub async fn owners_of_location(&self, caller: &Caller, location: &str) -> Result<Owners> {
        let location = locations::checked(location)?;
        let Some(place) = unless_elsewhere(self.place_of(caller, &location, "").await)? else {
            return Ok(Owners::Elsewhere);
        };
        self.owners_near(caller, &place).await
    }

    /// Who has something at, above or below a file or folder of this machine, whether or not the server reads artifacts there.
    pub async fn owners_of_path(&self, caller: &Caller, path: &Path) -> Result<Owners> {
        let place = Place::File(Folder::at(path), String::new());
        self.owners_near(caller, &place).await
    }

    async fn owners_near(&self, caller: &Caller, place: &Place) -> Result<Owners> {
        if self.holds_a_root(place) {
            return Ok(Owners::Nobody);
        }
        let spot = Spot::of(place);
        let (all, kept) = (self.grounds().await?, self.kept_around(&spot).await?);
        let near = all
            .iter()
            .filter(|ground| ground.spot.holds(&spot) || spot.holds(&ground.spot));
        let owners = owners_of(kept.iter().chain(near));
        if !owners.is_empty() {
            return Ok(Owners::These(owners));
        }
        Ok(if self.is_reserved(caller, &spot) {
            Owners::Nobody
        } else {
            Owners::Elsewhere
        })
    }

    /// Whether a place is where an experiment to come will be, another workspace's, or where arrivals wait.
    fn is_reserved(&self, caller: &Caller, spot: &Spot) -> bool {
        let below = |of: &Caller| -> Option<String> {
            let roots = self.roots_of_new(of);
            let root = roots
                .iter()
                .filter(|root| root.holds(spot))
                .max_by_key(|root| root.names.len())?;
            spot.names.get(root.names.len()).cloned()
        };
        let first = below(caller).or_else(|| below(&Caller::default()));
        first.is_some_and(|name| {
            name.bytes().all(|b| b.is_ascii_digit()) || name == "workspaces" || name == ".unfinished"
        })
    }

    /// Where experiments are that nothing else is said of: by the default root, and in the proxy.
    fn roots_of_new(&self, caller: &Caller) -> Vec<Spot> {
        let default = Root::of(&self.options().default_artifact_root);
        let default = default.and_then(|root| self.placed(caller, root, ""));
        let places = [default, self.proxy_place(caller, "")];
        places.iter().flatten().map(Spot::of).collect()
    }

    /// Whether a place holds all of what the server was started with, or more.
    pub(super) fn holds_a_root(&self, place: &Place) -> bool {
        let caller = Caller {
            user: String::new(),
            workspace: DEFAULT_WORKSPACE.to_owned(),
        };
        let spot = Spot::of(place);
        let buckets = self.all_buckets().into_iter();
        let mut roots = buckets
            .map(|bucket| Spot::of(&Place::Bucket(bucket, String::new())))
            .chain(self.roots_of_new(&caller));
        roots.any(|root| spot.holds(&root))
    }

    async fn owners_at(&self, spot: &Spot) -> Result<Owners> {
        let (all, kept) = (self.grounds().await?, self.kept_around(spot).await?);
        // In a run's own folder are, of the experiments around, only those that lie in it as well.
        let within =
            |ground: &&Ground| kept.is_empty() || kept.iter().any(|own| own.spot.holds(&ground.spot));
        let around = all.iter().filter(|ground| ground.spot.holds(spot)).filter(within);
        let mut owners = owners_of(kept.iter().chain(around));
        if owners.is_empty() {
            return Ok(Owners::Nobody);
        }
        for owner in owners_of(all.iter().filter(|ground| spot.holds(&ground.spot))) {
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        Ok(Owners::These(owners))
    }

    /// The runs and logged models whose artifacts a place is among. Their ids are among its names.
    async fn kept_around(&self, spot: &Spot) -> Result<Vec<Ground>> {
        let ids = spot.names.clone();
        let found = self.store().read(move |tx| rows::kept_by(tx, &ids)).await?;
        let mut kept = self.grounds_of(found).await?;
        kept.retain(|ground| ground.spot.holds(spot));
        Ok(kept)
    }

    /// Where every experiment keeps its artifacts, of those that the server reads.
    async fn grounds(&self) -> Result<Arc<Vec<Ground>>> {
        let stamp = self.store().read(rows::experiments_stamp).await?;
        {
            let held = self
                .users()
                .grounds
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(held) = held.as_ref().filter(|held| held.stamp == stamp) {
                return Ok(Arc::clone(&held.all));
            }
        }
        let (stamp, found) = self
            .store()
            .read(|tx| Ok((rows::experiments_stamp(tx)?, rows::locations(tx)?)))
            .await?;
        let by_number = self.folders_by_number(&found);
        let mut all = self.grounds_of(found).await?;
        all.extend(by_number);
        let all = Arc::new(all);
        let mut held = self
            .users()
            .grounds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *held = Some(Grounds {
            stamp,
            all: Arc::clone(&all),
        });
        Ok(all)
    }

    /// The folders of the proxy that are experiments' by their numbers, also where their locations are elsewhere.
    fn folders_by_number(&self, experiments: &[rows::Kept]) -> Vec<Ground> {
        let ground = |kept: &rows::Kept| {
            let number = kept.experiment.to_string();
            let caller = Caller {
                user: String::new(),
                workspace: kept.workspace.clone(),
            };
            let place = self.proxy_place(&caller, &number).ok()?;
            Some(Ground {
                spot: Spot::of(&place),
                owner: Owner {
                    experiment: number,
                    workspace: caller.workspace,
                },
            })
        };
        experiments.iter().filter_map(ground).collect()
    }

    async fn grounds_of(&self, kept: Vec<rows::Kept>) -> Result<Vec<Ground>> {
        let mut grounds = Vec::with_capacity(kept.len());
        for kept in kept {
            // As one of its own workspace reads it.
            let caller = Caller {
                user: String::new(),
                workspace: kept.workspace.clone(),
            };
            match self.place_of(&caller, &kept.uri, "").await {
                Ok(place) => grounds.push(Ground {
                    spot: Spot::of(&place),
                    owner: Owner {
                        experiment: kept.experiment.to_string(),
                        workspace: kept.workspace,
                    },
                }),
                Err(TrackingError::Store(error)) => return Err(error.into()),
                // Nobody reads anything there.
                Err(_) => {}
            }
        }
        Ok(grounds)
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::clock::{Timestamp, VirtualClock};
    use tidemill_store::Store;
    use tidemill_store::objects::Bucket;

    use super::super::super::TrackingOptions;
    use super::super::{Destination, Place};
    use super::*;

    fn bucket(uri: &str) -> Bucket {
        let keys = |name: &str| {
            let key = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(&name);
            key.then(|| "none".to_owned())
        };
        Bucket::open(uri, &keys).unwrap()
    }

    fn house(options: TrackingOptions) -> (tempfile::TempDir, Tracking) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        let clock = VirtualClock::new(Timestamp::from_micros(1_000_000));
        (dir, Tracking::new(store, Arc::new(clock), options))
    }

    #[tokio::test]
    async fn all_artifacts_at_once_are_never_removed() {
        let (_dir, tracking) = house(TrackingOptions::default());
        let caller = Caller::default();
        let upload = tracking.upload_artifact(&caller, "0/run/file").await.unwrap();
        upload.finish().await.unwrap();
        let removed = tracking.remove_place(&Place::Object(String::new())).await;
        assert_eq!(removed.unwrap(), (false, super::super::Swept::default()));
        assert!(tracking.artifact(&caller, "0/run/file").await.is_ok());
        let removed = tracking.remove_place(&Place::Object("0/run".to_owned())).await;
        assert!(removed.unwrap().0);

        let files = tempfile::tempdir().unwrap();
        let root = files.path().join("root");
        std::fs::create_dir_all(root.join("0")).unwrap();
        let (_dir, tracking) = house(TrackingOptions {
            artifacts_destination: Some(Destination::Folder(root.clone())),
            ..TrackingOptions::default()
        });
        for (folder, path) in [
            (root.clone(), ""),
            (files.path().to_owned(), "root"),
            (files.path().to_owned(), ""),
        ] {
            let place = Place::File(Folder::at(folder), path.to_owned());
            assert!(!tracking.remove_place(&place).await.unwrap().0, "{place:?}");
        }
        assert!(root.join("0").is_dir());
        let own = Place::File(Folder::at(root.join("0")), String::new());
        assert!(tracking.remove_place(&own).await.unwrap().0);
    }

    #[test]
    fn a_uri_is_read_in_the_closest_of_the_buckets_that_hold_it() {
        let (_dir, tracking) = house(TrackingOptions {
            buckets: vec![bucket("s3://b"), bucket("s3://b/x"), bucket("s3://b/x/y")],
            ..TrackingOptions::default()
        });
        let placed = |uri: &str| {
            let place = tracking.placed(&Caller::default(), Root::of(uri).unwrap(), "");
            match place.unwrap() {
                Place::Bucket(bucket, path) => (bucket.uri().to_owned(), path),
                other => panic!("{other:?}"),
            }
        };
        for (uri, root, path) in [
            ("s3://b/x/y/5/run", "s3://b/x/y", "5/run"),
            ("s3://b/x/5", "s3://b/x", "5"),
            ("s3://b/xy/5", "s3://b", "xy/5"),
            ("S3A://b/x", "s3://b/x", ""),
        ] {
            assert_eq!(placed(uri), (root.to_owned(), path.to_owned()), "{uri}");
        }
        // One place, whichever of them it is read by.
        let through = |uri: &str, path: &str| Spot::of(&Place::Bucket(bucket(uri), path.to_owned()));
        assert_eq!(through("s3://b", "x/y/5"), through("s3://b/x/y", "5"));
        assert!(through("s3://b", "").holds(&through("s3://b/x", "y")));
        assert!(!through("s3://b/x", "").holds(&through("s3://b", "xy")));
        assert!(!through("s3://b", "").holds(&through("s3://c", "x")));
    }
}
