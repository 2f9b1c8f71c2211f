//! How work on the services' runtime answers the run that waits for it.
//!
//! Only a channel is shared between the two: a task handle would keep the task's memory, and the last to let go would
//! be charged for it or credited with it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, Receiver};

use crate::job::ErrorKind;
use crate::script::ports::{HostError, HostResult};

/// The answer to come. Made, and its work begun, where memory is not charged to a run.
#[derive(Debug)]
#[must_use = "the answer has to be waited for"]
pub struct Reply<T>(Receiver<HostResult<T>>);

impl<T: Send + 'static> Reply<T> {
    /// Begins `work`; dropping the reply drops it.
    pub(super) fn of(runtime: &Handle, work: impl Future<Output = HostResult<T>> + Send + 'static) -> Self {
        let (mut answer, reply) = oneshot::channel();
        runtime.spawn(async move {
            let result = tokio::select! {
                biased;
                () = answer.closed() => return,
                result = work => result,
            };
            let _ = answer.send(result);
        });
        Self(reply)
    }

    /// Begins `work`, which goes on when the reply is dropped.
    pub(super) fn of_all(runtime: &Handle, work: impl Future<Output = HostResult<T>> + Send + 'static) -> Self {
        let (answer, reply) = oneshot::channel();
        runtime.spawn(async move {
            let _ = answer.send(work.await);
        });
        Self(reply)
    }
}

impl<T> Future for Reply<T> {
    type Output = HostResult<T>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<HostResult<T>> {
        Pin::new(&mut self.0).poll(task).map(|answered| {
            // No answer: the work panicked, which the log has, or the runtime is gone.
            let lost = || HostError::new(ErrorKind::Panic, "a host function failed without an answer", false);
            answered.unwrap_or_else(|_| Err(lost()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_the_reply_drops_the_work_or_lets_it_go_on() {
        let runtime = Handle::current();
        let (dropped, ended) = oneshot::channel::<()>();
        drop(Reply::of(&runtime, async move {
            let _held = dropped;
            std::future::pending::<HostResult<()>>().await
        }));
        assert!(ended.await.is_err(), "what the work held was dropped");

        let (done, ended) = oneshot::channel();
        drop(Reply::of_all(&runtime, async move {
            tokio::task::yield_now().await;
            let _ = done.send(7);
            Ok(())
        }));
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let reply: Reply<()> = Reply::of(&Handle::current(), async { panic!("on purpose") });
        assert_eq!(reply.await.unwrap_err().kind, ErrorKind::Panic);
    }
}
