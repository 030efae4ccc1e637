//! Who is there in a Keystone for tests: users, projects, and the roles that users have in projects.

/// The password of every user.
pub const PASSWORD: &str = "of-the-tests";
/// The one domain, which Keystone makes by itself.
pub const DOMAIN: &str = "Default";
/// The one region.
pub const REGION: &str = "RegionOne";
/// Who may do everything, in the project of the same name. Made before Keystone runs.
pub const ADMIN: &str = "admin";
/// What the Block Storage service is to Keystone, in the project [`SERVICES`].
pub const CINDER: &str = "cinder";
/// Another service, which vouches for users' requests: Nova, in the project [`SERVICES`].
pub const NOVA: &str = "nova";
/// The project of services.
pub const SERVICES: &str = "service";
/// Projects of users. Users are called after them: `alpha-admin`, `alpha-member`, `alpha-reader`.
pub const PROJECTS: [&str; 2] = ["alpha", "beta"];
/// Roles that users have in their projects.
pub const ROLES: [&str; 3] = ["admin", "member", "reader"];

/// A user, with its roles in a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub user: String,
    /// The project's name.
    pub project: String,
    /// Roles' names.
    pub roles: Vec<&'static str>,
}

/// All users but [`ADMIN`].
pub fn all() -> Vec<Account> {
    let service = |user: &str, roles: &[&'static str]| Account {
        user: user.to_owned(),
        project: SERVICES.to_owned(),
        roles: roles.to_vec(),
    };
    let services = [
        service(CINDER, &["admin", "service"]),
        service(NOVA, &["service"]),
    ];
    let users = PROJECTS.iter().flat_map(|project| {
        ROLES.iter().map(move |role| Account {
            user: format!("{project}-{role}"),
            project: (*project).to_owned(),
            roles: vec![*role],
        })
    });
    services.into_iter().chain(users).collect()
}
