//! The file that a model's weights are mapped from, and protection against changes of it.
//!
//! A mapped page is read when it is first touched. If the file was truncated by then, the system ends the process with
//! SIGBUS; if its bytes were overwritten, the model computes with the new ones. Protection:
//!
//! - a file that replaces another is **installed**: written to a temporary file, checked, and renamed over the old one.
//!   Models that have the old one mapped keep it;
//! - before every run the file's length and modification time are compared; a difference is the error
//!   `package.changed`. This is one `fstat`, well below a microsecond. It does not see changes during a run, and it
//!   also reports a file whose date was set by hand;
//! - with `Config.copy` nothing is mapped.
//!
//! No lock is taken, since Android and iOS have no mandatory locks, and no SIGBUS handler is set: a process has only
//! one, and it belongs to the app, its crash reporter or the JVM.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use crate::error::{Result, SkipstoneError};

/// A mapped file, with its state when it was mapped.
pub(crate) struct MappedFile {
    file: File,
    state: (u64, Option<SystemTime>),
}

impl MappedFile {
    /// Records the file's state before it is mapped.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn new(file: File) -> Result<Self> {
        let state = state(&file).map_err(|error| refused(&"the package", &error))?;
        Ok(Self { file, state })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Length of the file.
    pub(crate) fn length(&self) -> u64 {
        self.state.0
    }

    /// Refuses a file that has changed.
    ///
    /// # Errors
    /// `Package`, `package.changed`.
    pub(crate) fn check(&self) -> Result<()> {
        if state(&self.file).ok() == Some(self.state) {
            return Ok(());
        }
        Err(SkipstoneError::Package {
            code: "package.changed".into(),
            message:
                "the package file was changed after it was opened; install new versions instead of overwriting the file"
                    .into(),
        })
    }

    /// Reads a part of the file into memory.
    ///
    /// # Errors
    /// `Io`, also if there is not enough memory.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = &self.file;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            let length = length.min(self.length().saturating_sub(offset));
            bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
            file.take(length).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| refused(&"the package", &error))
    }
}

fn state(file: &File) -> io::Result<(u64, Option<SystemTime>)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified().ok()))
}

pub(crate) fn refused(what: &dyn std::fmt::Display, error: &io::Error) -> SkipstoneError {
    SkipstoneError::Io { code: "io".into(), message: format!("{what}: {error}") }
}

/// A temporary file, renamed once its content is checked; removed if that fails.
pub(crate) struct Aside {
    path: PathBuf,
    kept: bool,
}

impl Aside {
    /// Writes `bytes` beside `target` and syncs them to disk.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn write(target: &Path, bytes: &mut dyn Read) -> Result<Self> {
        // Two concurrent installations write two files; the one that is renamed last stays.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let aside = Self { path: target.with_file_name(name), kept: false };
        let mut write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&aside.path)?;
            io::copy(bytes, &mut file)?;
            file.flush()?;
            file.sync_all()
        };
        write().map_err(|error| refused(&aside.path.display(), &error))?;
        Ok(aside)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the file to `target` atomically: whoever opens `target` sees the complete old file or the complete new
    /// one.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn rename(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(|error| refused(&target.display(), &error))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use skipstone::graph::Graph;
    use skipstone::ops::reduce::{Reduce, ReduceKind};
    use skipstone::{DType, Fact, Shape};

    use super::*;
    use crate::{Config, Model, Session, TensorAddress};

    /// A temporary folder, removed when it is dropped, and the bytes of a small package.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("skipstone-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str) -> String {
            self.0.join(name).to_str().unwrap().to_owned()
        }

        fn names(&self) -> Vec<String> {
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            fs::read_dir(&self.0).unwrap().map(name).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A small network with `channels` channels, as a package.
    fn package(channels: usize) -> Vec<u8> {
        let mut graph = Graph::new();
        let image = graph.add_input("image", Fact::new(DType::F32, Shape::new(&[1, channels, 2, 2]).unwrap())).unwrap();
        let sum = Reduce { axes: vec![2, 3], kind: ReduceKind::Sum, keep_dims: false };
        let sums = graph.add_node("sum", sum, &[image]).unwrap()[0];
        graph.outputs.push(("sums".into(), sums));
        skipstone::package::write(&graph, &skipstone::Info::default(), None, None).unwrap()
    }

    fn run(session: &Session, channels: usize) -> Result<()> {
        let (input, mut output) = (vec![1.0f32; channels * 4], vec![0.0f32; channels]);
        let at = |address: *const f32, elements: usize| TensorAddress {
            address: address as u64,
            length_bytes: elements as u64 * 4,
        };
        session.run_at(vec![at(input.as_ptr(), channels * 4)], vec![at(output.as_mut_ptr(), channels)])?;
        assert_eq!(output, vec![4.0; channels]);
        Ok(())
    }

    /// Regression: a package that was truncated or overwritten while mapped ended the process, or was run.
    #[test]
    fn a_package_that_changes_under_its_mapping_is_an_error() {
        let folder = Folder::new("changes");
        type Change = fn(&Path);
        let changes: [(&str, Change); 3] = [
            ("cut", |path| OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap()),
            ("emptied", |path| drop(File::create(path).unwrap())),
            ("overwritten", |path| {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                (&file).write_all(b"others").unwrap();
                // A time later than any that a coarse clock could give both writes.
                file.set_modified(SystemTime::now() + std::time::Duration::from_secs(10)).unwrap();
            }),
        ];
        for (name, change) in changes {
            let path = folder.file(name);
            fs::write(&path, package(3)).unwrap();
            let mapped = Session::new(Model::open(path.clone(), Config::default()).unwrap()).unwrap();
            let copied = Config { copy: true, ..Config::default() };
            let copied = Session::new(Model::open(path.clone(), copied).unwrap()).unwrap();
            run(&mapped, 3).unwrap();
            change(Path::new(&path));
            assert_eq!(run(&mapped, 3).unwrap_err().code(), "package.changed", "{name}");
            assert_eq!(mapped.latency().runs, 1);
            run(&copied, 3).unwrap();
        }
    }

    #[test]
    fn an_installed_package_leaves_open_ones_alone() {
        let folder = Folder::new("install");
        let (from, to) = (folder.file("from"), folder.file("model.skip"));
        fs::write(&from, package(3)).unwrap();
        let old = Model::install(from.clone(), to.clone(), Config::default()).unwrap();
        assert_eq!(old.info().name, "model");
        let old = Session::new(old).unwrap();
        let new = Session::new(Model::install_bytes(&package(5), to.clone(), Config::default()).unwrap()).unwrap();
        run(&new, 5).unwrap();
        run(&old, 3).unwrap();
        run(&Session::new(Model::open(to, Config::default()).unwrap()).unwrap(), 5).unwrap();
        fs::remove_file(&from).unwrap();
        run(&old, 3).unwrap();
        assert_eq!(folder.names(), ["model.skip"]);
    }

    #[test]
    fn a_package_above_a_limit_is_refused_with_its_name_and_opens_once_it_is_raised() {
        let folder = Folder::new("limits");
        let (whole, to) = (package(300), folder.file("model.skip"));
        let with = |name: &str, value| Config { limits: [(name.to_owned(), value)].into(), ..Config::default() };
        for name in ["memory", "work"] {
            let opened = Model::from_bytes(&whole, with(name, 100));
            for refused in [opened, Model::install_bytes(&whole, to.clone(), with(name, 100))] {
                let error = refused.map(drop).unwrap_err();
                assert_eq!(error.code(), "model.limit");
                assert!(error.to_string().contains(&format!("'{name}'")), "{error}");
            }
            Model::from_bytes(&whole, with(name, 1 << 20)).unwrap();
        }
        assert!(folder.names().is_empty());
        // It bounds ONNX files.
        Model::install_bytes(&whole, to, with("nodes", 0)).unwrap();
    }

    #[test]
    fn failed_installations_leave_the_target_unchanged() {
        let folder = Folder::new("broken");
        let to = folder.file("model.skip");
        Model::install_bytes(&package(3), to.clone(), Config::default()).unwrap();
        let whole = package(5);
        for bytes in [&whole[..whole.len() - 1], &[], b"not a package"] {
            let error = Model::install_bytes(bytes, to.clone(), Config::default()).map(drop).unwrap_err();
            assert!(matches!(error, SkipstoneError::Package { .. } | SkipstoneError::Model { .. }), "{error:?}");
        }
        let code = |result: Result<std::sync::Arc<Model>>| result.map(drop).unwrap_err().code().to_owned();
        assert_eq!(code(Model::install(folder.file("nothing"), to.clone(), Config::default())), "io");
        assert_eq!(code(Model::install_bytes(&whole, folder.file("no/folder"), Config::default())), "io");
        assert_eq!(code(Model::install_bytes(&whole, String::new(), Config::default())), "io");
        assert_eq!(folder.names(), ["model.skip"]);
        run(&Session::new(Model::open(to, Config::default()).unwrap()).unwrap(), 3).unwrap();
    }
}
