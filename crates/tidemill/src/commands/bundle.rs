//! `tidemill bundle`, and what it shares with `deploy` and `serve`: from what was named on the command line to an archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidemill_core::deployments::{BUNDLE_FORMAT, BundleManifest, BundledModel, BundledPython};
use tidemill_core::digest::Digest;
use tidemill_core::tensors::{DataType, TensorSpec};
use tidemill_models::bundle::{Include, collect, file_named_by, pack, recognise};

use crate::deploy_args::{BundleArgs, DeploymentArgs};
use crate::exit::{BadInput, Code, bad_input};

/// Something that can be sent to a server.
pub enum Ready {
    /// `models:/…` or `runs:/…`: the server has it. Beside it, what a request says of its Python.
    Registered {
        source: String,
        python: Map<String, Value>,
    },
    /// A graph, with the name that it gets where none is given.
    Graph { name: String, graph: Value },
    /// A bundle, in a folder that goes with it.
    Archive { path: PathBuf, _folder: Option<TempDir> },
}

/// Packs what was named, unless it is a bundle or a registered model already.
pub fn ready(what: &str, name: Option<&str>, args: &BundleArgs) -> Result<Ready> {
    if what.starts_with("models:/") || what.starts_with("runs:/") {
        return Ok(Ready::Registered {
            source: what.to_owned(),
            python: python_of_registered(args)?,
        });
    }
    let path = Path::new(what);
    if path.extension().is_some_and(|extension| extension == "tidemill") && path.is_file() {
        nothing_to_pack("a bundle, which is packed already", args)?;
        return Ok(Ready::Archive {
            path: path.to_owned(),
            _folder: None,
        });
    }
    if path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml")
    {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.file_name().is_some_and(|file| file == "tidemill.yaml") {
            bad_input!(
                "`{}` is a project, whose graphs `tidemill up` serves; a graph that is deployed by itself stands in a file of its own",
                path.display()
            );
        }
        nothing_to_pack("a graph, which has no files", args)?;
        let name = name.map_or(stem, str::to_owned);
        let graph = tidemill_core::spec::load_graph(path, &name)?;
        return Ok(Ready::Graph { name, graph });
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let archive = folder.path().join("bundle.tidemill");
    write(what, name, args, &archive)?;
    Ok(Ready::Archive {
        path: archive,
        _folder: Some(folder),
    })
}

/// The options of packing that were given, by name.
fn given(args: &BundleArgs) -> Vec<&'static str> {
    let all = [
        (!args.include.is_empty(), "--include"),
        (args.lock.is_some(), "--lock"),
        (args.method.is_some(), "--method"),
        (!args.inputs.is_empty(), "--inputs"),
        (args.requirements.is_some(), "--requirements"),
        (args.python.is_some(), "--python"),
        (!args.env.is_empty(), "--env"),
        (!args.preload.is_empty(), "--preload"),
    ];
    let given = all.into_iter().filter(|(is_given, _)| *is_given);
    given.map(|(_, name)| name).collect()
}

/// Refuses options that would change nothing.
fn nothing_to_pack(what: &str, args: &BundleArgs) -> Result<()> {
    let given = given(args);
    if !given.is_empty() {
        bad_input!(
            "`{}` changes nothing of {what}: leave it out, or give it to `tidemill bundle` or in the graph's own file",
            given.join("`, `")
        );
    }
    Ok(())
}

/// What a request for a model that the server has says of the Python in which it is loaded.
fn python_of_registered(args: &BundleArgs) -> Result<Map<String, Value>> {
    let packing = ["--include", "--lock", "--method", "--inputs"];
    let given = given(args);
    if let Some(option) = given.iter().find(|option| packing.contains(option)) {
        bad_input!(
            "`{option}` is for files that are packed here, and the server has this model's; download it and deploy its folder to use it"
        );
    }
    let mut request = Map::new();
    if let Some(path) = &args.requirements {
        let text = std::fs::read_to_string(path)
            .map_err(|error| BadInput(format!("cannot read `{}`: {error}", path.display())))?;
        request.insert("requirements".to_owned(), text.into());
    }
    if args.python.is_some() || !args.env.is_empty() || !args.preload.is_empty() {
        let without_lock = BundleArgs {
            requirements: None,
            ..args.clone()
        };
        let python = python_of(&without_lock, &mut BTreeMap::new())?;
        request.insert("python".to_owned(), serde_json::to_value(python)?);
    }
    Ok(request)
}

/// `tidemill bundle WHAT -o FILE`
pub fn run(
    what: &str,
    name: Option<&str>,
    args: &BundleArgs,
    serving_args: &DeploymentArgs,
    output: &Path,
    json: bool,
) -> Result<Code> {
    let mut planned = plan(what, name, args)?;
    planned.manifest.serving = serving(serving_args)?;
    planned.tell();
    pack(&planned.manifest, &planned.files, output)?;
    let bytes = std::fs::read(output).with_context(|| format!("cannot read `{}`", output.display()))?;
    let digest = Digest::of(&bytes);
    if json {
        let files: Vec<&String> = planned.files.keys().collect();
        println!(
            "{}",
            json!({ "bundle": output, "digest": digest, "bytes": bytes.len(), "files": files, "manifest": planned.manifest })
        );
    } else {
        println!(
            "`{}`: {} files, {} bytes, digest {}",
            output.display(),
            planned.files.len(),
            bytes.len(),
            digest.short()
        );
    }
    Ok(Code::Success)
}

/// Writes the archive of what was named.
pub fn write(what: &str, name: Option<&str>, args: &BundleArgs, archive: &Path) -> Result<()> {
    let planned = plan(what, name, args)?;
    planned.tell();
    Ok(pack(&planned.manifest, &planned.files, archive)?)
}

/// What is going to be packed.
struct Planned {
    manifest: BundleManifest,
    files: BTreeMap<String, PathBuf>,
    secrets: Vec<PathBuf>,
}

impl Planned {
    fn tell(&self) {
        for secret in &self.secrets {
            eprintln!(
                "left out `{}`, which looks like a secret; `--include` it by its own name if it has to go along",
                secret.display()
            );
        }
    }
}

fn plan(what: &str, name: Option<&str>, args: &BundleArgs) -> Result<Planned> {
    if let Some((module, attribute)) = what.rsplit_once(':')
        && let Some(file) = python_file(module)
    {
        return plan_function(&file, attribute, name, args);
    }
    let path = Path::new(what);
    if path.exists() {
        return plan_model(path, name, args);
    }
    bad_input!(
        "`{what}` is nothing that can be deployed: expected `app.py:function`, a model file, a folder with `MLmodel`, \
         `models:/NAME/VERSION`, `runs:/RUN/PATH` or a bundle"
    );
}

/// `app.py`, `app` and `package.app` name the same kind of thing.
fn python_file(module: &str) -> Option<PathBuf> {
    let path = PathBuf::from(module);
    if path.extension().is_some_and(|extension| extension == "py") && path.is_file() {
        return Some(path);
    }
    let path = PathBuf::from(format!("{}.py", module.replace('.', "/")));
    path.is_file().then_some(path)
}

fn plan_function(file: &Path, attribute: &str, name: Option<&str>, args: &BundleArgs) -> Result<Planned> {
    let file = file
        .canonicalize()
        .with_context(|| format!("cannot find `{}`", file.display()))?;
    // Imports start where the outermost package lies.
    let mut root = file.parent().unwrap_or(Path::new("/")).to_owned();
    while root.join("__init__.py").is_file() {
        let Some(parent) = root.parent() else { break };
        root = parent.to_owned();
    }
    let below = file.strip_prefix(&root).unwrap_or(&file).with_extension("");
    let module: Vec<_> = below
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    let mut includes = vec![Include {
        path: root.clone(),
        extension: Some(".py"),
        named: false,
    }];
    includes.extend(included(args)?);
    let last = attribute.rsplit('.').next().unwrap_or(attribute);
    let model = BundledModel::Function {
        target: format!("{}:{attribute}", module.join(".")),
    };
    finish(
        &root,
        &includes,
        name.unwrap_or(last),
        model,
        Some(BundledPython::default()),
        args,
    )
}

fn plan_model(path: &Path, name: Option<&str>, args: &BundleArgs) -> Result<Planned> {
    let path = path
        .canonicalize()
        .with_context(|| format!("cannot find `{}`", path.display()))?;
    let found = recognise(&path)?;
    let root = if path.is_dir() {
        path.clone()
    } else {
        path.parent().unwrap_or(Path::new("/")).to_owned()
    };
    let mut includes = vec![Include {
        path: path.clone(),
        extension: None,
        named: path.is_file(),
    }];
    if path.is_file()
        && let Some(named) = file_named_by(&path)
    {
        let beside = root.join(&named);
        if !beside.is_file() {
            bad_input!(
                "`{}` names `{named}`, which is not beside it; put the model's file there",
                path.display()
            );
        }
        includes.push(Include {
            path: beside,
            extension: None,
            named: true,
        });
    }
    includes.extend(included(args)?);
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut model = found.model;
    match &mut model {
        BundledModel::Estimator { method, inputs, .. } => {
            method.clone_from(&args.method);
            *inputs = tensor_specs(&args.inputs)?;
        }
        _ if args.method.is_some() || !args.inputs.is_empty() => {
            bad_input!(
                "`--method` and `--inputs` are for pickled estimators; `{}` is none",
                path.display()
            );
        }
        _ => {}
    }
    let python = found.python.then(BundledPython::default);
    finish(&root, &includes, name.unwrap_or(&stem), model, python, args)
}

fn finish(
    root: &Path,
    includes: &[Include],
    name: &str,
    model: BundledModel,
    python: Option<BundledPython>,
    args: &BundleArgs,
) -> Result<Planned> {
    let mut collected = collect(root, includes)?;
    let python = match python {
        Some(_) => Some(python_of(args, &mut collected.files)?),
        None if args.requirements.is_some() || args.lock.is_some() || args.python.is_some() => {
            bad_input!(
                "`--requirements`, `--lock` and `--python` are for what needs Python, and this model does not"
            );
        }
        None => None,
    };
    Ok(Planned {
        manifest: BundleManifest {
            format: BUNDLE_FORMAT,
            name: name.to_owned(),
            model,
            python,
            serving: Map::new(),
        },
        files: collected.files,
        secrets: collected.secrets,
    })
}

fn included(args: &BundleArgs) -> Result<Vec<Include>> {
    let mut includes = Vec::new();
    for pattern in &args.include {
        let path = PathBuf::from(pattern);
        if path.exists() {
            includes.push(Include {
                named: path.is_file(),
                path,
                extension: None,
            });
            continue;
        }
        let matches =
            glob::glob(pattern).map_err(|error| BadInput(format!("`--include {pattern}`: {error}")))?;
        let before = includes.len();
        includes.extend(matches.flatten().map(|path| Include {
            path,
            extension: None,
            named: false,
        }));
        if includes.len() == before {
            bad_input!("`--include {pattern}`: there is nothing of that name");
        }
    }
    Ok(includes)
}

fn python_of(args: &BundleArgs, files: &mut BTreeMap<String, PathBuf>) -> Result<BundledPython> {
    let lock = match args.requirements.as_ref().or(args.lock.as_ref()) {
        Some(path) => {
            let path = path
                .canonicalize()
                .map_err(|error| BadInput(format!("cannot read the lock `{}`: {error}", path.display())))?;
            let own = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let as_requirements = args.requirements.is_some();
            let name = if as_requirements {
                "requirements.txt".to_owned()
            } else {
                own
            };
            if !as_requirements && !["uv.lock", "pylock.toml"].contains(&name.as_str()) {
                bad_input!(
                    "`--lock {}`: expected `uv.lock` or `pylock.toml`; `--requirements` takes other files",
                    path.display()
                );
            }
            if name == "uv.lock" {
                let project = path.with_file_name("pyproject.toml");
                if !project.is_file() {
                    bad_input!(
                        "`{}` needs the `pyproject.toml` that it was made from beside it",
                        path.display()
                    );
                }
                files.insert("pyproject.toml".to_owned(), project);
            }
            files.insert(name.clone(), path);
            Some(name)
        }
        None => None,
    };
    let mut environment = BTreeMap::new();
    for pair in &args.env {
        let Some((name, value)) = pair.split_once('=') else {
            bad_input!("`--env {pair}`: expected `NAME=VALUE`");
        };
        environment.insert(name.to_owned(), value.to_owned());
    }
    let interpreter = args.python.as_ref().map(|path| {
        // An environment's folder stands for its interpreter.
        let python = path.join("bin/python");
        if path.is_dir() && python.exists() {
            python
        } else {
            path.clone()
        }
    });
    Ok(BundledPython {
        interpreter,
        lock,
        preload: args.preload.clone(),
        environment,
    })
}

fn tensor_specs(inputs: &[String]) -> Result<Vec<TensorSpec>> {
    let mut specs = Vec::new();
    for input in inputs {
        let parsed = input.rsplit_once(':').and_then(|(name, datatype)| {
            DataType::named(datatype).map(|datatype| TensorSpec::new(name, datatype, vec![-1]))
        });
        let Some(spec) = parsed else {
            let known = DataType::ALL.map(DataType::name).join(", ");
            bad_input!("`--inputs {input}`: expected `NAME:DATATYPE`, with one of {known}");
        };
        specs.push(spec);
    }
    Ok(specs)
}

/// The settings that the command line gives, as parts of a `ServingSpec`.
pub fn serving(args: &DeploymentArgs) -> Result<Map<String, Value>> {
    let mut whole = match &args.serving {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| BadInput(format!("cannot read `{}`: {error}", path.display())))?;
            let value: Value = serde_saphyr::from_str(&text)
                .map_err(|error| BadInput(format!("`{}`: {error}", path.display())))?;
            match value {
                Value::Object(map) => map,
                _ => bad_input!("`{}`: expected settings by name", path.display()),
            }
        }
        None => Map::new(),
    };
    let memory = match &args.memory {
        Some(text) => match tidemill_models::bundle::mebibytes(text) {
            Some(mib) => Some(mib),
            None => bad_input!("`--memory {text}`: expected such as `512MiB` or `2GiB`"),
        },
        None => None,
    };
    let asked = json!({
        "worker": {
            "cpu": args.cpu, "memory_mib": memory, "concurrency": args.concurrency, "time_limit": args.time_limit,
        },
        "scaling": { "min": args.min, "max": args.max, "provisioned": args.provisioned, "idle": args.idle },
        "batching": { "max_rows": args.batch, "max_delay": args.batch_delay },
        "timeout": args.timeout,
        "device": args.device,
        "convert": args.convert.then_some(true),
    });
    tidemill_core::deployments::merge_settings(&mut whole, &without_nulls(asked));
    Ok(whole)
}

fn without_nulls(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else {
        return Map::new();
    };
    let kept = map.into_iter().filter_map(|(key, value)| match value {
        Value::Null => None,
        Value::Object(_) => {
            let below = without_nulls(value);
            (!below.is_empty()).then(|| (key, Value::Object(below)))
        }
        other => Some((key, other)),
    });
    kept.collect()
}
