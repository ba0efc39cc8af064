//! The port to whoever answers, and the patience of work that nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};
use tidemill_core::clock::{Stopwatch, real_sleep};
use tidemill_core::ids::{EndpointName, VersionNumber};
use tokio::sync::Semaphore;

use super::error::{BatchError, Result};

/// A request that cannot be answered now is tried again for so long.
const PATIENCE: Duration = Duration::from_mins(2);
/// The first wait before that, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// While online requests wait for this machine a job's request waits too, for so long at most: a job goes on, if slowly.
const STANDS_BACK: Duration = Duration::from_secs(10);

/// A request to a model.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Who is asked.
    pub endpoint: EndpointName,
    /// Which version of it, if not the one that answers.
    pub version: Option<VersionNumber>,
    /// What makes a repetition the same request.
    pub id: Option<String>,
    /// What is asked.
    pub body: AskBody,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum AskBody {
    /// Rows of a table: JSON with `dataframe_split`. Answered as MLflow's scoring protocol does.
    Split(String),
    /// Instances, and what goes with each. Answered as Vertex AI does: the list of predictions.
    Instances(Vec<Value>, Value),
    /// A body of a type, and the type that is wanted back, as `SageMaker`'s runtime takes it.
    Body {
        /// Its type.
        content_type: String,
        /// The type of the answer; empty for JSON.
        accept: String,
        /// As it is.
        bytes: Bytes,
        /// What goes to the model beside it.
        parameters: Map<String, Value>,
    },
}

/// What came back.
#[derive(Debug, Clone)]
pub enum Given {
    /// To [`AskBody::Split`] and [`AskBody::Instances`].
    Json(Value),
    /// To [`AskBody::Body`].
    Bytes(Bytes),
}

impl Given {
    /// The answer to rows or instances.
    pub(super) fn json(self) -> Result<Value> {
        match self {
            Self::Json(value) => Ok(value),
            Self::Bytes(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| BatchError::internal(format!("the answer is not JSON: {error}"))),
        }
    }

    /// The answer to a body.
    pub(super) fn bytes(self) -> Bytes {
        match self {
            Self::Json(value) => value.to_string().into(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Whoever answers: the same way that online requests go, after everybody else's.
#[async_trait]
pub trait Asks: Send + Sync {
    /// Answers a request.
    async fn ask(&self, asking: Asking) -> Result<Given>;
    /// Whether online requests wait for this machine.
    fn is_pressed(&self) -> bool;
}

/// Asks with patience, so many requests at once for all jobs together.
#[derive(Clone)]
pub struct Patient {
    asks: Arc<dyn Asks>,
    places: Arc<Semaphore>,
}

impl Patient {
    /// Asks at most `at_once` requests at the same time.
    pub fn new(asks: Arc<dyn Asks>, at_once: usize) -> Self {
        Self {
            asks,
            places: Arc::new(Semaphore::new(at_once.max(1))),
        }
    }

    /// Answers a request, waiting where nobody can answer it now.
    pub async fn ask(&self, asking: Asking) -> Result<Given> {
        let answer = self.ask_within(asking, None).await?;
        answer.ok_or_else(|| BatchError::internal("a request without a limit took too long"))
    }

    /// The same; `None` if the answer takes longer than `limit`. Neither that nor the patience counts what the request waits for its turn,
    /// which is behind others of its own job.
    pub async fn ask_within(&self, asking: Asking, limit: Option<Duration>) -> Result<Option<Given>> {
        let mut spent = Duration::ZERO;
        let mut wait = WAITS.0;
        loop {
            let Ok(place) = self.places.acquire().await else {
                return Err(BatchError::internal("the places of batch jobs are closed"));
            };
            self.stand_back().await;
            let since = Stopwatch::start();
            let asked = self.asks.ask(asking.clone());
            let answered = match limit {
                None => asked.await,
                Some(limit) => match tokio::time::timeout(limit, asked).await {
                    Ok(answered) => answered,
                    Err(_) => return Ok(None),
                },
            };
            drop(place);
            spent += since.elapsed();
            match answered {
                Err(error) if error.passing && spent < PATIENCE => {
                    tracing::debug!(%error, endpoint = %asking.endpoint, "a batch job waits");
                    real_sleep(wait).await;
                    spent += wait;
                    wait = (wait * 2).min(WAITS.1);
                }
                answered => return answered.map(Some),
            }
        }
    }

    async fn stand_back(&self) {
        let since = Stopwatch::start();
        while self.asks.is_pressed() && since.elapsed() < STANDS_BACK {
            real_sleep(WAITS.0).await;
        }
    }
}

/// Who is asked for single bodies, and for all else.
pub(super) struct Patients {
    /// For single bodies, which do not wait behind long jobs.
    pub invoked: Patient,
    /// For all else.
    pub others: Patient,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidemill_core::ports::PortError;

    use super::*;

    /// Cannot answer the first requests; counts how many it is asked at once.
    struct Busy {
        refuses: AtomicUsize,
        now: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl Asks for Busy {
        async fn ask(&self, asking: Asking) -> Result<Given> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            real_sleep(Duration::from_millis(2)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            if asking.endpoint.as_str() == "wrong" {
                return Err(BatchError::refused("wrong"));
            }
            let refuse = self
                .refuses
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if refuse.is_ok() {
                let mut error = BatchError::from(PortError::internal("overloaded", "busy"));
                error.passing = true;
                return Err(error);
            }
            Ok(Given::Json(Value::Null))
        }

        fn is_pressed(&self) -> bool {
            false
        }
    }

    fn asking(endpoint: &str) -> Asking {
        Asking {
            endpoint: endpoint.into(),
            version: None,
            id: None,
            body: AskBody::Split("{}".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_busy_model_is_asked_again_and_a_wrong_request_is_not() {
        let busy = Arc::new(Busy {
            refuses: AtomicUsize::new(2),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let patient = Patient::new(Arc::clone(&busy) as Arc<dyn Asks>, 2);
        let all: Vec<_> = (0..6)
            .map(|_| {
                let patient = patient.clone();
                tokio::spawn(async move { patient.ask(asking("right")).await })
            })
            .collect();
        for one in all {
            one.await.unwrap().unwrap();
        }
        assert_eq!(busy.most.load(Ordering::SeqCst), 2);
        // What waits behind others does not use up its time.
        let (once, limit) = (
            Patient::new(Arc::clone(&busy) as Arc<dyn Asks>, 1),
            Duration::from_secs(1),
        );
        let held = once.places.acquire().await.unwrap();
        let waiting = tokio::spawn({
            let once = once.clone();
            async move { once.ask_within(asking("right"), Some(limit)).await }
        });
        real_sleep(limit + Duration::from_millis(100)).await;
        drop(held);
        assert!(waiting.await.unwrap().unwrap().is_some());
        let none = once
            .ask_within(asking("right"), Some(Duration::from_micros(1)))
            .await;
        assert!(none.unwrap().is_none());
        assert_eq!(patient.ask(asking("wrong")).await.unwrap_err().message, "wrong");
    }
}
