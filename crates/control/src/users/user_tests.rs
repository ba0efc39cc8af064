use std::sync::Arc;

use tempfile::TempDir;
use tidemill_core::clock::{Timestamp, VirtualClock};
use tidemill_store::Store;
use tidemill_store::workspaces::Workspace;

use super::{AuthOptions, Credentials, EXPERIMENT, Permission, REGISTERED_MODEL, ServerRole};
use crate::tracking::{Caller, Tracking, TrackingOptions};

const PASSWORD: &str = "a password of ours";

async fn house() -> (TempDir, VirtualClock, Tracking) {
    let dir = TempDir::new().unwrap();
    let clock = VirtualClock::new(Timestamp::from_micros(1_000_000));
    let options = TrackingOptions {
        auth: Some(AuthOptions {
            admin_password: Some("password1234".into()),
            ..AuthOptions::default()
        }),
        ..TrackingOptions::default()
    };
    let store = Store::open(dir.path()).unwrap();
    let tracking = Tracking::new(store, Arc::new(clock.clone()), options);
    tracking.prepare_users().await.unwrap();
    (dir, clock, tracking)
}

fn caller(user: &str) -> Caller {
    Caller {
        user: user.to_owned(),
        ..Caller::default()
    }
}

#[tokio::test]
async fn what_was_checked_is_remembered_until_it_changes() {
    let (_dir, _clock, tracking) = house().await;
    tracking.prepare_users().await.unwrap();
    tracking.create_user("ada", PASSWORD).await.unwrap();
    let ada = Credentials::basic("ada", PASSWORD);
    let first = tracking.authenticate(&ada).await.unwrap().unwrap();
    let second = tracking.authenticate(&ada).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.on(EXPERIMENT, "7", "default"), Permission::Read);

    tracking
        .create_grant(&caller("admin"), "ada", EXPERIMENT, "7", "EDIT")
        .await
        .unwrap();
    let third = tracking.authenticate(&ada).await.unwrap().unwrap();
    assert_eq!(third.on(EXPERIMENT, "7", "default"), Permission::Edit);

    tracking
        .set_password("ada", "another password", None)
        .await
        .unwrap();
    assert!(tracking.authenticate(&ada).await.unwrap().is_none());
    let ada = Credentials::basic("ada", "another password");
    assert!(tracking.authenticate(&ada).await.unwrap().is_some());
    tracking.delete_user(&caller("admin"), "ada").await.unwrap();
    assert!(tracking.authenticate(&ada).await.unwrap().is_none());
    let nobody = Credentials::basic("nobody", PASSWORD);
    assert!(tracking.authenticate(&nobody).await.unwrap().is_none());
}

#[tokio::test]
async fn a_token_counts_until_it_expires_or_is_revoked() {
    let (_dir, clock, tracking) = house().await;
    tracking.create_user("ada", PASSWORD).await.unwrap();
    let short = tracking
        .create_token(&caller("ada"), "ci", Some(1000))
        .await
        .unwrap();
    let long = tracking
        .create_token(&caller("ada"), "laptop", None)
        .await
        .unwrap();
    assert_eq!(short.token.len(), 40);
    let by = |token: &str| Credentials::Token(token.to_owned());
    for token in [&short.token, &long.token] {
        assert_eq!(
            tracking.authenticate(&by(token)).await.unwrap().unwrap().name,
            "ada"
        );
    }
    let as_password = Credentials::basic("whoever", &long.token);
    assert!(tracking.authenticate(&as_password).await.unwrap().is_some());
    clock.advance_to(Timestamp::from_micros(3_000_000));
    assert!(tracking.authenticate(&by(&short.token)).await.unwrap().is_none());
    assert!(
        tracking.revoke_token(&caller("admin"), long.id).await.is_err(),
        "not theirs"
    );
    tracking.revoke_token(&caller("ada"), long.id).await.unwrap();
    assert!(tracking.authenticate(&by(&long.token)).await.unwrap().is_none());
    assert!(tracking.authenticate(&by("tm_wrong")).await.unwrap().is_none());
}

#[tokio::test]
async fn there_is_always_an_administrator() {
    let (_dir, _clock, tracking) = house().await;
    assert!(tracking.set_admin("admin", false).await.is_err());
    assert!(tracking.delete_user(&caller("admin"), "admin").await.is_err());
    tracking.create_user("ada", PASSWORD).await.unwrap();
    assert!(tracking.create_user("ada", PASSWORD).await.is_err());
    assert!(tracking.create_user("", PASSWORD).await.is_err());
    assert!(tracking.create_user("bob", "short").await.is_err());
    tracking.set_admin("ada", true).await.unwrap();
    tracking.set_admin("admin", false).await.unwrap();
    assert_eq!(tracking.user("admin").await.unwrap().role, ServerRole::Viewer);
}

#[tokio::test]
async fn the_first_start_needs_a_password_and_later_ones_do_not() {
    let (dir, _clock, tracking) = house().await;
    let options = TrackingOptions {
        auth: Some(AuthOptions::default()),
        ..TrackingOptions::default()
    };
    let clock = Arc::new(VirtualClock::new(Timestamp::from_micros(0)));
    let later = Tracking::new(tracking.store().clone(), Arc::clone(&clock) as _, options.clone());
    later.prepare_users().await.unwrap();
    let store = Store::open(&dir.path().join("other")).unwrap();
    let first = Tracking::new(store, clock, options);
    let refusal = first.prepare_users().await.unwrap_err().to_string();
    assert!(refusal.contains("TIDEMILL_ADMIN_PASSWORD"), "{refusal}");
}

#[tokio::test]
async fn a_role_is_given_to_many_and_changed_for_all() {
    let (_dir, _clock, tracking) = house().await;
    tracking.create_user("ada", PASSWORD).await.unwrap();
    let role = tracking
        .create_role("default", "team", None)
        .await
        .unwrap()
        .role
        .id;
    assert!(tracking.create_role("default", "team", None).await.is_err());
    assert!(tracking.create_role("default", "__user_1__", None).await.is_err());
    let permission = tracking
        .add_role_permission(role, REGISTERED_MODEL, "*", "EDIT")
        .await
        .unwrap();
    assert!(
        tracking
            .add_role_permission(role, "run", "1", "EDIT")
            .await
            .is_err()
    );
    assert!(
        tracking
            .add_role_permission(role, "workspace", "*", "READ")
            .await
            .is_err()
    );
    tracking.assign_role("ada", role).await.unwrap();
    assert!(tracking.assign_role("ada", role).await.is_err());
    let ada = Credentials::basic("ada", PASSWORD);
    let on = |principal: Arc<super::Principal>| principal.on(REGISTERED_MODEL, "m", "default");
    assert_eq!(
        on(tracking.authenticate(&ada).await.unwrap().unwrap()),
        Permission::Edit
    );
    tracking
        .update_role_permission(permission.id, "DENY")
        .await
        .unwrap();
    assert_eq!(
        on(tracking.authenticate(&ada).await.unwrap().unwrap()),
        Permission::Deny
    );
    tracking.delete_role(role).await.unwrap();
    assert_eq!(
        on(tracking.authenticate(&ada).await.unwrap().unwrap()),
        Permission::Read
    );
}

#[tokio::test]
async fn a_workspace_is_deleted_only_when_it_is_empty() {
    let (_dir, _clock, tracking) = house().await;
    let team = |name: &str| Workspace {
        name: name.into(),
        description: None,
        default_artifact_root: Some(" ".into()),
    };
    let made = tracking.create_workspace(team("team-a")).await.unwrap();
    assert_eq!(made.default_artifact_root, None);
    assert!(tracking.create_workspace(team("team-a")).await.is_err());
    assert!(tracking.create_workspace(team("default")).await.is_err());
    tracking.create_user("ada", PASSWORD).await.unwrap();
    tracking
        .set_workspace_grant("team-a", "ada", "MANAGE")
        .await
        .unwrap();
    assert!(
        tracking
            .set_workspace_grant("team-b", "ada", "MANAGE")
            .await
            .is_err()
    );
    assert_eq!(tracking.workspace_grants("team-a").await.unwrap().len(), 1);
    assert!(tracking.delete_workspace("default", None).await.is_err());
    assert!(tracking.delete_workspace("team-a", Some("WHAT")).await.is_err());
    tracking.delete_workspace("team-a", None).await.unwrap();
    assert!(tracking.workspace("team-a").await.is_err());
    assert!(tracking.workspace_grants("team-a").await.unwrap().is_empty());
}
