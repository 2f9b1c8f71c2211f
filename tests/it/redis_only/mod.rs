//! What only the broker on Redis can show: links that break in the middle of anything, records that somebody else wrote
//! over, memory that is full. The contract suite shows all else.

mod garbage;
mod rounds;

use ryemill::broker::redis::{Namespace, RedisBroker, Target};

/// A broker on a namespace, over an address of its own choice.
async fn open(address: &str, namespace: &str) -> RedisBroker {
    let target = Target::one(&format!("redis://{address}")).unwrap();
    RedisBroker::open(target, Namespace::new(namespace), false).await.unwrap()
}

fn namespace() -> String {
    format!("only-{:016x}", rand::random::<u64>())
}
