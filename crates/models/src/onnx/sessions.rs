//! Sessions of one model: each answers one call at a time, so there are as many as there are calls, up to a bound.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use ort::ep::CUDA;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use tidemill_core::ports::ModelBundle;
use tidemill_core::spec::Device;
use tidemill_core::tensors::Tensor;

use super::bound::Bound;
use super::device::{Line, Place, places};
use super::tensors::{ValueError, from_ort, to_ort};
use super::{OnnxError, library};

/// How sessions are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Threads that one call uses.
    pub threads: usize,
    /// Calls at a time, on the processor; on a GPU it is one.
    pub sessions: usize,
    /// Where they run.
    pub device: Device,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            threads: 1,
            sessions: cores,
            device: Device::Cpu,
        }
    }
}

/// A model's bytes and its sessions.
pub(super) struct Sessions {
    model: Vec<u8>,
    /// Weights in files of their own, by name.
    external: Vec<(String, Arc<[u8]>)>,
    settings: Settings,
    place: Place,
    /// Before a GPU.
    line: Option<Arc<Line>>,
    pool: Mutex<Pool>,
    freed: Condvar,
}

struct Pool {
    idle: Vec<Slot>,
    made: usize,
}

/// A session, and the memory of its calls on a GPU, which goes before it.
struct Slot {
    bound: Option<Bound>,
    session: Session,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum RunError {
    /// An input does not become a value.
    Input(String, ValueError),
    /// The model does not answer these inputs.
    Answer(ValueError),
    /// There is no session.
    Session(OnnxError),
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("settings", &self.settings)
            .field("place", &self.place)
            .field("bytes", &self.model.len())
            .finish_non_exhaustive()
    }
}

impl Sessions {
    /// Loads a checked model, with one session, so that what ONNX Runtime does not take is told now.
    pub fn open(
        model: Vec<u8>,
        external: &[String],
        bundle: &ModelBundle,
        settings: Settings,
    ) -> Result<Self, OnnxError> {
        let external = external
            .iter()
            .filter_map(|name| Some((name.clone(), Arc::from(bundle.get(name)?.as_slice()))));
        let mut sessions = Self {
            model,
            external: external.collect(),
            settings,
            place: Place::Cpu,
            line: None,
            pool: Mutex::new(Pool {
                idle: Vec::new(),
                made: 0,
            }),
            freed: Condvar::new(),
        };
        let first = sessions.settle(&places(settings.device)?)?;
        let mut pool = sessions.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.idle.push(first);
        pool.made = 1;
        drop(pool);
        Ok(sessions)
    }

    /// Stays in the first place that takes the model.
    fn settle(&mut self, places: &[Place]) -> Result<Slot, OnnxError> {
        let mut refused = None;
        for place in places {
            self.place = *place;
            match self.make() {
                Ok(slot) => {
                    self.line = match place {
                        Place::Cuda(number) => Some(Line::before(*number)),
                        Place::Cpu => None,
                    };
                    if self.line.is_some() {
                        tracing::info!(%place, "an onnx model is loaded");
                    }
                    return Ok(slot);
                }
                Err(why) => {
                    if places.len() > 1 && *place != Place::Cpu {
                        tracing::warn!(%place, %why, "an onnx model cannot run there, and runs on the processor instead");
                    }
                    refused = Some(why);
                }
            }
        }
        let nowhere = || OnnxError::Refused("there is no place to run it".to_owned());
        Err(match (refused, self.place) {
            (Some(OnnxError::Refused(why)), Place::Cuda(number)) => {
                OnnxError::NoDevice(format!("`cuda:{number}`: {why}"))
            }
            (refused, _) => refused.unwrap_or_else(nowhere),
        })
    }

    fn make(&self) -> Result<Slot, OnnxError> {
        let environment = library::environment()?;
        let refused = |error: &dyn std::fmt::Display| OnnxError::Refused(error.to_string());
        let set = |builder: SessionBuilder| -> ort::Result<SessionBuilder> {
            let mut builder = builder
                .with_intra_threads(self.settings.threads.max(1))?
                .with_inter_threads(1)?
                .with_intra_op_spinning(false)?
                .with_optimization_level(GraphOptimizationLevel::All)?;
            if let Place::Cuda(number) = self.place {
                let cuda = CUDA::default().with_device_id(i32::try_from(number).unwrap_or(i32::MAX));
                builder = builder.with_execution_providers([cuda.build().error_on_failure()])?;
            }
            for (name, bytes) in &self.external {
                builder = builder.with_external_initializer_file_in_memory(name, Arc::clone(bytes))?;
            }
            Ok(builder)
        };
        let builder = Session::builder(environment).map_err(|error| refused(&error))?;
        let mut builder = set(builder).map_err(|error| refused(&error))?;
        let session = builder
            .commit_from_memory(&self.model)
            .map_err(|error| refused(&error))?;
        let bound = match self.place {
            Place::Cpu => None,
            Place::Cuda(_) => Some(Bound::new(&session, self.place).map_err(|error| refused(&error))?),
        };
        Ok(Slot { bound, session })
    }

    /// Where it runs.
    pub fn place(&self) -> Place {
        self.place
    }

    /// How many calls it answers at a time: a GPU has one line.
    pub fn limit(&self) -> usize {
        match self.place {
            Place::Cpu => self.settings.sessions.max(1),
            Place::Cuda(_) => 1,
        }
    }

    /// About how many bytes one session and the model take.
    pub fn bytes(&self) -> u64 {
        let weights: usize = self.external.iter().map(|(_, bytes)| bytes.len()).sum();
        2 * (self.model.len() + weights) as u64
    }

    /// Answers `wanted`: the outputs' names, and what ONNX Runtime calls them. Waits for a session if all are at work.
    pub fn run(&self, inputs: &[(&str, &Tensor)], wanted: &[(&str, &str)]) -> Result<Vec<Tensor>, RunError> {
        if let Some(line) = &self.line {
            let answer = self.with(|slot| {
                let _turn = line.wait();
                let Slot { bound, session } = slot;
                bound.as_mut().map(|bound| bound.run(session, inputs, wanted))
            });
            if let Some(answer) = answer.map_err(RunError::Session)? {
                return answer.map_err(RunError::Answer);
            }
        }
        let values = inputs.iter().map(|(name, tensor)| {
            let value = to_ort(tensor).map_err(|error| RunError::Input((*name).to_owned(), error))?;
            Ok((*name, SessionInputValue::from(value)))
        });
        let values = values.collect::<Result<Vec<_>, RunError>>()?;
        let answer = self.with(|slot| -> Result<Vec<Tensor>, ValueError> {
            let selector = wanted
                .iter()
                .fold(OutputSelector::no_default(), |selector, (_, inside)| {
                    selector.with(*inside)
                });
            let options = RunOptions::new()?.with_outputs(selector);
            let outputs = slot.session.run_with_options(values, &options)?;
            let read = wanted.iter().map(|(name, inside)| match outputs.get(inside) {
                Some(value) => from_ort(name, value),
                None => Err(ValueError::Type(format!("output `{name}` did not come"))),
            });
            read.collect()
        });
        answer.map_err(RunError::Session)?.map_err(RunError::Answer)
    }

    /// Runs `work` with a session of its own; waits for one if all are at work.
    fn with<T>(&self, work: impl FnOnce(&mut Slot) -> T) -> Result<T, OnnxError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slot = loop {
            if let Some(slot) = pool.idle.pop() {
                drop(pool);
                break slot;
            }
            if pool.made < self.limit() {
                pool.made += 1;
                drop(pool);
                match self.make() {
                    Ok(slot) => break slot,
                    Err(error) => {
                        self.pool.lock().unwrap_or_else(PoisonError::into_inner).made -= 1;
                        self.freed.notify_one();
                        return Err(error);
                    }
                }
            }
            pool = self.freed.wait(pool).unwrap_or_else(PoisonError::into_inner);
        };
        let result = work(&mut slot);
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.idle.push(slot);
        drop(pool);
        self.freed.notify_one();
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mlp() -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx/mlp.onnx");
        std::fs::read(path).unwrap()
    }

    fn asked(sessions: &Sessions) -> Option<Vec<Tensor>> {
        let graph = super::super::proto::read(&sessions.model).unwrap().graph;
        let input = &graph.inputs[0];
        let width = *input.shape.as_ref().unwrap().last().unwrap() as usize;
        let values: Vec<f32> = (0..2 * width).map(|value| value as f32 / 7.0).collect();
        let x = Tensor::of_f32(input.name, vec![2, width], &values).unwrap();
        let wanted: Vec<(&str, &str)> = graph
            .outputs
            .iter()
            .map(|output| (output.name, output.name))
            .collect();
        sessions.run(&[(input.name, &x)], &wanted).ok()
    }

    fn opened(device: Device) -> Result<Sessions, OnnxError> {
        let settings = Settings {
            device,
            ..Settings::default()
        };
        Sessions::open(mlp(), &[], &ModelBundle::new(), settings)
    }

    #[test]
    fn bound_memory_gives_the_answers_that_values_give() {
        if library::environment().is_err() {
            return;
        }
        let sessions = opened(Device::Cpu).unwrap();
        let expected = asked(&sessions).unwrap();
        let graph = super::super::proto::read(&sessions.model).unwrap().graph;
        let names: Vec<(&str, &str)> = graph
            .outputs
            .iter()
            .map(|output| (output.name, output.name))
            .collect();
        let input = &graph.inputs[0];
        let width = *input.shape.as_ref().unwrap().last().unwrap() as usize;
        let values: Vec<f32> = (0..2 * width).map(|value| value as f32 / 7.0).collect();
        let x = Tensor::of_f32(input.name, vec![2, width], &values).unwrap();
        let bound = sessions.with(|slot| {
            let mut bound = Bound::new(&slot.session, Place::Cpu).unwrap();
            // The second call writes into the first one's buffer.
            let zeros = Tensor::of_f32(input.name, vec![2, width], &vec![0.0; 2 * width]).unwrap();
            bound
                .run(&mut slot.session, &[(input.name, &zeros)], &names)
                .unwrap();
            bound.run(&mut slot.session, &[(input.name, &x)], &names).unwrap()
        });
        assert_eq!(bound.unwrap(), expected);
    }

    #[test]
    fn without_a_gpu_auto_is_the_processor_and_cuda_is_refused_with_the_way_to_get_it() {
        if library::environment().is_err() || std::path::Path::new("/dev/nvidia0").exists() {
            return;
        }
        let auto = opened(Device::Auto).unwrap();
        assert_eq!(auto.place(), Place::Cpu);
        assert_eq!(asked(&auto), asked(&opened(Device::Cpu).unwrap()));
        let error = opened(Device::Cuda(0)).unwrap_err().of("m.onnx");
        assert_eq!(error.code, "device_missing");
        assert!(
            error
                .message
                .contains("`cuda:0`: this process sees no NVIDIA GPU"),
            "{error}"
        );
    }

    #[test]
    fn a_place_that_refuses_the_model_is_left_for_the_next() {
        if library::environment().is_err() {
            return;
        }
        let mut sessions = opened(Device::Cpu).unwrap();
        // No machine has this GPU.
        let first = sessions.settle(&[Place::Cuda(4_000), Place::Cpu]);
        assert!(first.is_ok() && sessions.place() == Place::Cpu && sessions.line.is_none());
        let error = sessions.settle(&[Place::Cuda(4_000)]).err().unwrap();
        assert!(matches!(error, OnnxError::NoDevice(_)), "{error}");
    }
}
