//! When a question has to end: at its time, or when nobody waits for the answer. Looked at before each batch of each operator.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt as _;
use tidemill_core::clock::Stopwatch;

use crate::error::{DataError, Result};

/// Whether some work has to end.
#[derive(Clone)]
pub struct Halt {
    since: Arc<Stopwatch>,
    longest: Duration,
    unwanted: Arc<AtomicBool>,
}

impl Halt {
    /// It may take so long from now on.
    pub fn after(longest: Duration) -> Self {
        Self {
            since: Arc::new(Stopwatch::start()),
            longest,
            unwanted: Arc::default(),
        }
    }

    /// An error if it has to end.
    pub fn check(&self) -> Result<()> {
        if self.unwanted.load(Ordering::Relaxed) {
            return Err(DataError::Upstream("nobody waits for it any more".to_owned()));
        }
        if self.since.elapsed() > self.longest {
            return Err(self.too_long());
        }
        Ok(())
    }

    /// The error of what takes too long.
    pub fn too_long(&self) -> DataError {
        DataError::QueryLimit(format!(
            "it takes longer than {} seconds; filter first, or ask for less",
            self.longest.as_secs_f64()
        ))
    }

    /// Ends the work when it is dropped.
    pub fn when_dropped(&self) -> Unwanted {
        Unwanted(Arc::clone(&self.unwanted))
    }

    /// A plan whose operators all look whether they have to end.
    pub fn watch(&self, plan: Arc<dyn ExecutionPlan>) -> EngineResult<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(Transformed::yes(Arc::new(Watched {
                inner: node,
                halt: self.clone(),
            }) as Arc<dyn ExecutionPlan>))
        })
        .data()
    }
}

/// Says that nobody waits any more.
pub struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Watched {
    inner: Arc<dyn ExecutionPlan>,
    halt: Halt,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.inner.name())
    }
}

impl DisplayAs for Watched {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched")
    }
}

impl ExecutionPlan for Watched {
    fn name(&self) -> &'static str {
        "Watched"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.inner]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> EngineResult<TreeNodeRecursion>,
    ) -> EngineResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(inner) if children.is_empty() => Ok(Arc::new(Self {
                inner,
                halt: self.halt.clone(),
            })),
            _ => Err(DataFusionError::Internal("one child is watched".to_owned())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> EngineResult<SendableRecordBatchStream> {
        let inner = self.inner.execute(partition, context)?;
        let (schema, halt, ended) = (inner.schema(), self.halt.clone(), self.halt.clone());
        let before = futures::stream::once(async move { ended.check() })
            .filter_map(|checked| async move { checked.err().map(outer).map(Err) });
        let checked = inner.map(move |batch| halt.check().map_err(outer).and(batch));
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            schema,
            before.chain(checked),
        )))
    }
}

fn outer(error: DataError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
