//! How work on the services' runtime answers the run that waits for it.
//!
//! A channel of our own, because of the memory account: what the two sides share must not keep the task alive. With a
//! task handle, or a channel that remembers the sender's waker, the last to let go is often the run, which would be
//! credited with memory that it was never charged for.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::runtime::Handle;

use crate::job::ErrorKind;
use crate::script::account;
use crate::script::ports::{HostError, HostResult};

/// The answer to come. Made, and its work begun, where memory is not charged to a run.
#[derive(Debug)]
#[must_use = "the answer has to be waited for"]
pub struct Reply<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    answer: Mutex<Option<HostResult<T>>>,
    reader: AtomicWaker,
    worker: AtomicWaker,
    /// Nobody waits any more.
    closed: AtomicBool,
}

/// The worker's side: answers in any case, also when the work panics or the runtime ends.
struct Answer<T>(Option<Arc<Shared<T>>>);

impl<T> Answer<T> {
    fn set(&mut self, answer: HostResult<T>) {
        let Some(shared) = self.0.take() else { return };
        shared.worker.take();
        *shared.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        let reader = shared.reader.take();
        // Let go before the reader wakes, so that it is the reader who frees what is shared, and knows it.
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.set(Err(HostError::new(ErrorKind::Panic, "a host function failed without an answer", false)));
    }
}

impl<T: Send + 'static> Reply<T> {
    /// Begins `work`; dropping the reply drops it.
    pub(super) fn of(runtime: &Handle, work: impl Future<Output = HostResult<T>> + Send + 'static) -> Self {
        Self::begin(runtime, work, true)
    }

    /// Begins `work`, which goes on when the reply is dropped.
    pub(super) fn of_all(runtime: &Handle, work: impl Future<Output = HostResult<T>> + Send + 'static) -> Self {
        Self::begin(runtime, work, false)
    }

    fn begin(runtime: &Handle, work: impl Future<Output = HostResult<T>> + Send + 'static, droppable: bool) -> Self {
        let shared = Arc::new(Shared {
            answer: Mutex::new(None),
            reader: AtomicWaker::new(),
            worker: AtomicWaker::new(),
            closed: AtomicBool::new(false),
        });
        let mut answer = Answer(Some(Arc::clone(&shared)));
        runtime.spawn(async move {
            let result = {
                let mut work = pin!(work);
                poll_fn(|task| {
                    if let Some(shared) = answer.0.as_ref().filter(|_| droppable) {
                        // Registered before the look, so that no drop is missed.
                        shared.worker.register(task.waker());
                        if shared.closed.load(Ordering::Acquire) {
                            return Poll::Ready(None);
                        }
                    }
                    work.as_mut().poll(task).map(Some)
                })
                .await
            };
            if let Some(result) = result {
                answer.set(result);
            }
        });
        Self(shared)
    }
}

impl<T> Future for Reply<T> {
    type Output = HostResult<T>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<HostResult<T>> {
        self.0.reader.register(task.waker());
        let answer = self.0.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.worker.wake();
        if Arc::strong_count(&self.0) == 1 {
            // What is freed here was not charged to the run that waited.
            account::adopt(size_of::<Shared<T>>() + 2 * size_of::<usize>());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

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

    #[test]
    fn a_runtime_that_ends_answers() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let reply: Reply<()> = Reply::of(runtime.handle(), std::future::pending());
        drop(runtime);
        let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(other.block_on(reply).unwrap_err().kind, ErrorKind::Panic);
    }
}
