//! A user as a request sees them: everything that decides what they may do, loaded once.

use std::collections::HashMap;

use tidemill_store::users::{Grant, User};

use super::{EVERY, EXPERIMENT, Need, Permission, ServerRole, WORKSPACE};
use crate::tracking::DEFAULT_WORKSPACE;

/// A user and what they are granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// The user's number.
    pub id: i64,
    /// The user's name.
    pub name: String,
    /// What the user may do everywhere.
    pub role: ServerRole,
    /// What anybody may do in the default workspace where no grant says otherwise.
    default: Permission,
    /// By type of resource, then by pattern.
    grants: HashMap<String, HashMap<String, Vec<Granted>>>,
    /// Whether a grant takes something away.
    restricted: bool,
    workspaces: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Granted {
    workspace: String,
    permission: Permission,
}

/// Resources of a type, by their ids or names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readable {
    /// These.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

impl Principal {
    /// From what is stored of a user.
    pub fn new(user: &User, grants: Vec<Grant>, default: Permission) -> Self {
        let mut by_resource: HashMap<String, HashMap<String, Vec<Granted>>> = HashMap::new();
        let mut restricted = false;
        let mut workspaces = Vec::new();
        for grant in grants {
            // What this version cannot read permits nothing.
            let permission = grant.permission.parse().unwrap_or(Permission::Deny);
            restricted |= permission <= Permission::NoPermissions;
            if !workspaces.contains(&grant.workspace) {
                workspaces.push(grant.workspace.clone());
            }
            let of_type = by_resource.entry(grant.resource_type).or_default();
            of_type.entry(grant.resource_pattern).or_default().push(Granted {
                workspace: grant.workspace,
                permission,
            });
        }
        Self {
            id: user.id,
            name: user.name.clone(),
            role: user.role.parse().unwrap_or(ServerRole::Viewer),
            default,
            grants: by_resource,
            restricted,
            workspaces,
        }
    }

    /// Whether the user may do everything.
    pub fn is_admin(&self) -> bool {
        self.role == ServerRole::Admin
    }

    /// What the user may do to a resource. A grant on it, or on every resource of its type, decides; then one on its workspace;
    /// then the role on the server and what anybody may. Of several grants the largest counts, unless one denies.
    pub fn on(&self, resource_type: &str, resource: &str, workspace: &str) -> Permission {
        if self.is_admin() {
            return Permission::Manage;
        }
        // The number of an experiment says which it is wherever it is.
        let anywhere = resource_type == EXPERIMENT;
        let exact = self
            .granted(resource_type, resource)
            .iter()
            .filter(|granted| anywhere || granted.workspace == workspace);
        let wide = self
            .granted(resource_type, EVERY)
            .iter()
            .filter(|granted| granted.workspace == workspace);
        folded(exact.chain(wide)).unwrap_or_else(|| self.in_workspace(workspace))
    }

    /// What the user may do to what a workspace holds, where no grant on it says otherwise.
    pub fn in_workspace(&self, workspace: &str) -> Permission {
        if self.is_admin() {
            return Permission::Manage;
        }
        let granted = self
            .granted(WORKSPACE, EVERY)
            .iter()
            .filter(|granted| granted.workspace == workspace);
        let floor = self.role.floor();
        match folded(granted) {
            Some(denied) if denied <= Permission::NoPermissions => denied,
            Some(member) if member.can_use() => member.max(self.default).max(floor),
            Some(visitor) => visitor.max(floor),
            None if workspace == DEFAULT_WORKSPACE => self.default.max(floor),
            None => floor,
        }
    }

    /// Whether the user may add experiments and models to a workspace. In the default one anybody may.
    pub fn may_create_in(&self, workspace: &str) -> bool {
        let permission = self.in_workspace(workspace);
        permission.can_use() || (workspace == DEFAULT_WORKSPACE && permission != Permission::Deny)
    }

    /// Whether the user may give roles in a workspace.
    pub fn governs(&self, workspace: &str) -> bool {
        let granted = self.granted(WORKSPACE, EVERY).iter();
        self.is_admin()
            || folded(granted.filter(|granted| granted.workspace == workspace)) == Some(Permission::Manage)
    }

    /// Whether the user may see that a workspace is there.
    pub fn sees_workspace(&self, workspace: &str) -> bool {
        self.is_admin()
            || workspace == DEFAULT_WORKSPACE
            || self.in_workspace(workspace) >= Permission::Read
            || self.has_role_in(workspace)
    }

    /// Whether the user has a role in a workspace.
    pub fn has_role_in(&self, workspace: &str) -> bool {
        self.is_admin() || self.workspaces.iter().any(|known| known == workspace)
    }

    /// Whether there is nothing in a workspace that the user may not look at.
    pub fn reads_all_of(&self, workspace: &str) -> bool {
        self.is_admin() || (!self.restricted && self.in_workspace(workspace) >= Permission::Read)
    }

    /// Whether there is no experiment in a workspace that the user may not change.
    pub fn changes_every_experiment_of(&self, workspace: &str) -> bool {
        let changes = |id: &str| self.on(EXPERIMENT, id, workspace).allows(Need::Update);
        // Where an experiment is that a grant names is not known here: it counts wherever it is.
        self.of_type(EXPERIMENT, workspace).allows(Need::Update) && self.named(EXPERIMENT).all(changes)
    }

    /// Which resources of a type in a workspace the user may look at.
    pub fn readable(&self, resource_type: &str, workspace: &str) -> Readable {
        let reads = |name: &str| self.on(resource_type, name, workspace).allows(Need::Read);
        let texts = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        if self.is_admin() {
            return Readable::Except(Vec::new());
        }
        let (may, may_not): (Vec<_>, Vec<_>) = self.named(resource_type).partition(|name| reads(name));
        if self.of_type(resource_type, workspace).allows(Need::Read) {
            Readable::Except(texts(may_not))
        } else {
            Readable::Only(texts(may))
        }
    }

    /// What the user may do to a resource of this type that no grant names.
    fn of_type(&self, resource_type: &str, workspace: &str) -> Permission {
        let wide = self.granted(resource_type, EVERY).iter();
        folded(wide.filter(|granted| granted.workspace == workspace))
            .unwrap_or_else(|| self.in_workspace(workspace))
    }

    /// The resources of a type that grants name.
    fn named(&self, resource_type: &str) -> impl Iterator<Item = &str> {
        let patterns = self.grants.get(resource_type).into_iter().flat_map(HashMap::keys);
        patterns.map(String::as_str).filter(|pattern| *pattern != EVERY)
    }

    fn granted(&self, resource_type: &str, pattern: &str) -> &[Granted] {
        let of_type = self.grants.get(resource_type);
        of_type
            .and_then(|of_type| of_type.get(pattern))
            .map_or(&[], Vec::as_slice)
    }
}

/// What several grants come to; `None` without any. `NO_PERMISSIONS` is said of one resource to take back what everybody may, so
/// it outweighs the others; `DENY` all the more.
fn folded<'a>(granted: impl Iterator<Item = &'a Granted>) -> Option<Permission> {
    let (mut least, mut most) = (None, None);
    for granted in granted {
        least = Some(least.map_or(granted.permission, |p: Permission| p.min(granted.permission)));
        most = Some(most.map_or(granted.permission, |p: Permission| p.max(granted.permission)));
    }
    least.filter(|least| *least <= Permission::NoPermissions).or(most)
}

#[cfg(test)]
mod tests {
    use super::super::REGISTERED_MODEL;
    use super::*;

    fn grant(workspace: &str, resource_type: &str, pattern: &str, permission: &str) -> Grant {
        Grant {
            role: 1,
            role_name: "r".into(),
            workspace: workspace.into(),
            own: true,
            resource_type: resource_type.into(),
            resource_pattern: pattern.into(),
            permission: permission.into(),
        }
    }

    fn user(role: &str, grants: Vec<Grant>) -> Principal {
        let user = User {
            id: 1,
            name: "ada".into(),
            password: String::new(),
            role: role.into(),
            created_ms: 0,
        };
        Principal::new(&user, grants, Permission::Read)
    }

    #[test]
    fn a_grant_on_the_resource_decides_before_what_everybody_may() {
        let ada = user(
            "viewer",
            vec![
                grant("default", EXPERIMENT, "1", "EDIT"),
                grant("default", EXPERIMENT, "2", "NO_PERMISSIONS"),
                grant("default", EXPERIMENT, "*", "USE"),
            ],
        );
        assert_eq!(ada.on(EXPERIMENT, "1", "default"), Permission::Edit);
        assert_eq!(ada.on(EXPERIMENT, "2", "default"), Permission::NoPermissions);
        assert_eq!(ada.on(EXPERIMENT, "3", "default"), Permission::Use);
        assert_eq!(ada.on(REGISTERED_MODEL, "m", "default"), Permission::Read);
        assert!(!ada.reads_all_of("default"));
        assert_eq!(
            ada.readable(EXPERIMENT, "default"),
            Readable::Except(vec!["2".into()])
        );
        assert_eq!(
            ada.readable(EXPERIMENT, "elsewhere"),
            Readable::Only(vec!["1".into()])
        );
        assert!(!ada.changes_every_experiment_of("default"));
        let editor = user("editor", vec![grant("other", EXPERIMENT, "*", "READ")]);
        assert!(editor.changes_every_experiment_of("default"));
        assert!(!editor.changes_every_experiment_of("other"));
        assert!(user("viewer", vec![]).reads_all_of("default"));
    }

    #[test]
    fn another_workspace_is_closed_to_those_who_have_no_grant_there() {
        let ada = user("viewer", vec![grant("team", WORKSPACE, "*", "USE")]);
        assert_eq!(ada.on(REGISTERED_MODEL, "m", "other"), Permission::NoPermissions);
        assert_eq!(ada.on(REGISTERED_MODEL, "m", "team"), Permission::Use);
        assert!(ada.may_create_in("team") && ada.may_create_in("default") && !ada.may_create_in("other"));
        assert!(ada.sees_workspace("team") && !ada.sees_workspace("other"));
        assert!(!ada.governs("team"));
        assert!(user("viewer", vec![grant("team", WORKSPACE, "*", "MANAGE")]).governs("team"));
    }

    #[test]
    fn a_role_on_the_server_is_a_floor_and_a_denial_is_final() {
        let editor = user("editor", vec![grant("default", EXPERIMENT, "1", "DENY")]);
        assert_eq!(editor.on(EXPERIMENT, "2", "default"), Permission::Edit);
        assert_eq!(editor.on(EXPERIMENT, "1", "default"), Permission::Deny);
        let admin = user("admin", vec![grant("default", EXPERIMENT, "1", "DENY")]);
        assert_eq!(admin.on(EXPERIMENT, "1", "default"), Permission::Manage);
    }
}
