//! A node for tests: a real `storaged` in a folder of its own, and the programs around it, started,
//! killed and stopped. It knows nothing of what is tested.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod etcd;
pub mod example;
pub mod metrics;
pub mod node;
pub mod process;
mod shapes;
mod talkative;

pub use cluster::{Cluster, join};
pub use etcd::Etcd;
pub use node::{Node, new_folder, storagectl};
pub use process::{Process, command_inside, program};
pub use shapes::tells;
pub use talkative::talkative;
