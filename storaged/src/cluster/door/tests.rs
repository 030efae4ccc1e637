//! Who has a good token is let in once; who has not learns why, and little else.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use coordination::etcd::Options;
use coordination::{Coordination, Embedded};
use joining::{KnockError, Secret, TokenId, knock};
use protocol::NodeId;
use tokio::task::JoinSet;

use super::*;
use crate::cluster::authority::Authority;
use crate::cluster::port::{NEWCOMERS_MAX, Port};
use crate::cluster::tokens::LIMIT_DEFAULT;
use crate::config::Listen;
use crate::identities::Identities;
use crate::peers::gate::Gate;

struct World {
    door: Arc<Door>,
    folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
    let identities = Arc::new(Identities::new(store.clone()));
    let authority = Authority::enter(&store, folder.path(), [1; 16], NodeId(1))
        .await
        .unwrap();
    let (shown, renewal) = authority.show(Vec::new()).unwrap();
    let listen = Listen {
        advertised: "127.0.0.1".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 0,
        plaintext: false,
    };
    let handover = handover(folder.path());
    let tokens = Tokens::new(store, identities, NodeId(1));
    let port = Port::bind(&listen).await.unwrap();
    let door = Arc::new(Door::new(port.address(), tokens, handover, shown.door));
    let mut tasks = JoinSet::new();
    tasks.spawn(renewal);
    tasks.spawn(port.serve(Some(door.clone()), Gate::new(Some(shown.node))));
    World {
        door,
        folder,
        _tasks: tasks,
    }
}

fn handover(work_dir: &Path) -> Handover {
    Handover {
        work_dir: work_dir.to_owned(),
        cluster: [1; 16],
        etcd: Options::plain(["http://127.0.0.1:2379".to_owned()]),
    }
}

async fn refusal(token: &Token) -> Refusal {
    match knock(token, "host-2").await {
        Err(KnockError::Refused { refusal, sentence }) => {
            assert!(sentence.len() > 20, "{sentence}");
            refusal
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_with_a_good_token_is_handed_the_authority_and_only_the_first_one() {
    let world = world().await;
    let token = world.door.invite(LIMIT_DEFAULT).await.unwrap().token;
    let (one, other) = tokio::join!(knock(&token, "host-2"), knock(&token, "host-3"));
    let (admitted, refused) = if one.is_ok() { (one, other) } else { (other, one) };
    let bundle = admitted.unwrap().bundle;
    assert!(bundle.key.contains("PRIVATE KEY"));
    assert_eq!(bundle.etcd.endpoints, ["http://127.0.0.1:2379"]);
    let refused = refused.unwrap_err();
    assert!(
        matches!(
            &refused,
            KnockError::Refused {
                refusal: Refusal::Used,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(refusal(&token).await, Refusal::Used);
}

#[tokio::test]
async fn a_wrong_secret_and_a_strange_number_let_nobody_in_and_leave_the_token_good() {
    let world = world().await;
    let token = world.door.invite(LIMIT_DEFAULT).await.unwrap().token;
    let wrong = Token {
        secret: Secret([0; 16]),
        ..token.clone()
    };
    assert_eq!(refusal(&wrong).await, Refusal::Wrong);
    let strange = Token {
        id: TokenId(token.id.0 ^ 1),
        ..token.clone()
    };
    assert_eq!(refusal(&strange).await, Refusal::Unknown);
    knock(&token, "host-2").await.unwrap();
}

#[tokio::test]
async fn after_many_wrong_tokens_none_is_looked_at_for_a_while() {
    let world = world().await;
    let token = world.door.invite(LIMIT_DEFAULT).await.unwrap().token;
    let wrong = Token {
        secret: Secret([0; 16]),
        ..token.clone()
    };
    for _ in 0..WRONG_MAX {
        assert_eq!(refusal(&wrong).await, Refusal::Wrong);
    }
    // Unless this machine stood still for as long as brings back another one, and then it is used up next.
    let mut last = refusal(&wrong).await;
    for _ in 0..WRONG_MAX {
        if last == Refusal::Busy {
            break;
        }
        last = refusal(&wrong).await;
    }
    assert_eq!(last, Refusal::Busy);
}

#[tokio::test]
async fn a_token_of_another_cluster_is_not_shown_to_this_one() {
    let (ours, theirs) = (world().await, world().await);
    let token = Token {
        addresses: vec![ours.door.address.clone()],
        ..theirs.door.invite(LIMIT_DEFAULT).await.unwrap().token
    };
    let refused = knock(&token, "host-2").await.unwrap_err();
    assert!(matches!(refused, KnockError::Impostor { .. }), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_handed_over_does_not_use_up_the_token() {
    let world = world().await;
    let token = world.door.invite(LIMIT_DEFAULT).await.unwrap().token;
    let key = world.folder.path().join("authority/key.pem");
    let text = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    assert_eq!(refusal(&token).await, Refusal::Unable);
    std::fs::write(&key, text).unwrap();
    knock(&token, "host-2").await.unwrap();
}

#[tokio::test]
async fn more_silent_visitors_than_there_is_room_for_keep_others_waiting_until_one_leaves() {
    let world = world().await;
    let token = world.door.invite(LIMIT_DEFAULT).await.unwrap().token;
    let mut silent = Vec::new();
    for _ in 0..NEWCOMERS_MAX {
        silent.push(TcpStream::connect(&world.door.address).await.unwrap());
    }
    let done = Cell::new(false);
    let visit = async {
        let visited = knock(&token, "host-2").await;
        done.set(true);
        visited
    };
    let leave = async {
        // A visit with room would be over long before.
        for _ in 0..20_000 {
            tokio::task::yield_now().await;
        }
        assert!(!done.get(), "there was room");
        silent.pop();
    };
    let (visited, ()) = tokio::join!(visit, leave);
    visited.unwrap();
}

#[test]
fn wrong_tokens_are_few_and_come_back_with_time() {
    let start = Instant::now();
    let mut wrong = WrongTokens::new(start);
    for _ in 0..WRONG_MAX {
        assert!(wrong.may_try(start));
        wrong.count();
    }
    assert!(!wrong.may_try(start + WRONG_EVERY / 2));
    assert!(wrong.may_try(start + WRONG_EVERY));
    wrong.count();
    assert!(!wrong.may_try(start + WRONG_EVERY));
    // However long nobody tries, there are never more than at the beginning.
    let later = start + WRONG_EVERY * 1000;
    for _ in 0..WRONG_MAX {
        assert!(wrong.may_try(later));
        wrong.count();
    }
    assert!(!wrong.may_try(later));
}
