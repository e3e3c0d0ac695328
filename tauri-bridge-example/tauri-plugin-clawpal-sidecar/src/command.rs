//! Which program the sidecar is, and the environment that it gets.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use tauri::{AppHandle, Manager, Runtime};

/// Names the program, with options, while an app is developed. It comes before all else.
pub const VARIABLE: &str = "CLAWPAL_SIDECAR";

const NAME: &str = if cfg!(windows) { "clawpal-sidecar.exe" } else { "clawpal-sidecar" };

/// What an app's own launcher, an AppImage above all, sets for the app: it would load the app's libraries, or another
/// Python's modules, into the sidecar.
const NOT_FOR_THE_SIDECAR: &[&str] = &[
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "DYLD_LIBRARY_PATH",
    "DYLD_INSERT_LIBRARIES",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONEXECUTABLE",
    "PERLLIB",
    "GCONV_PATH",
    "GIO_MODULE_DIR",
    "GSETTINGS_SCHEMA_DIR",
    "GTK_PATH",
    "GTK_EXE_PREFIX",
    "GTK_DATA_PREFIX",
    "GTK_IM_MODULE_FILE",
    "GDK_PIXBUF_MODULE_FILE",
    "QT_PLUGIN_PATH",
    "APPDIR",
    "APPIMAGE",
    "ARGV0",
    "OWD",
];

/// Lists of folders, from which those of the AppImage are taken.
const LISTS: &[&str] = &["PATH", "XDG_DATA_DIRS"];

/// A program with its options, as in `std::process::Command`; it keeps its spaces.
#[derive(Clone, Debug)]
pub struct SidecarCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Variables beside those of the app.
    pub env: Vec<(OsString, OsString)>,
}

impl SidecarCommand {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// From a command line: the name of a file, whatever is in it, or words, of which quotes keep one together.
    pub fn parse(text: &str) -> Option<Self> {
        if Path::new(text).is_file() {
            return Some(Self::new(text));
        }
        let mut words = words(text).into_iter();
        let command = Self::new(words.next()?);
        Some(words.fold(command, Self::arg))
    }

    /// What is bundled with the app: the folder `clawpal-sidecar` among its resources, else a program beside the app's.
    ///
    /// `CLAWPAL_SIDECAR` comes before both. An error names the places.
    pub fn bundled<R: Runtime>(app: &AppHandle<R>) -> Result<Self, String> {
        if let Some(command) = env::var(VARIABLE).ok().as_deref().and_then(Self::parse) {
            return Ok(command);
        }
        let in_resources = app.path().resource_dir().ok().map(|folder| folder.join("clawpal-sidecar").join(NAME));
        let beside = env::current_exe().ok().and_then(|program| Some(program.parent()?.join(NAME)));
        let places: Vec<PathBuf> = in_resources.into_iter().chain(beside).collect();
        match places.iter().find(|place| place.is_file()) {
            Some(program) => Ok(Self::new(program)),
            None => Err(format!("clawpal-sidecar is not among {places:?}, and {VARIABLE} is not set")),
        }
    }

    pub(crate) fn build(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        command.env_clear().envs(cleaned(env::vars_os().collect()));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The app's environment without what was meant for the app alone. A variable that a launcher has saved as
/// `<name>_ORIG` is as it was before.
fn cleaned(variables: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let get = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let appdir = get("APPDIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let of_the_app = |folder: &Path| appdir.as_ref().is_some_and(|appdir| folder.starts_with(appdir));
    let is_one_of = |names: &[&str], key: &OsStr| names.iter().any(|name| key == *name);

    let mut kept = Vec::new();
    for (name, value) in &variables {
        if is_one_of(NOT_FOR_THE_SIDECAR, name) {
            let original = name.to_str().and_then(|name| get(&format!("{name}_ORIG")));
            kept.extend(original.filter(|value| !value.is_empty()).map(|value| (name.clone(), value)));
        } else if is_one_of(LISTS, name) {
            let folders = env::split_paths(value).filter(|folder| !of_the_app(folder));
            // Folders that came out of such a list can be joined into one.
            kept.extend(env::join_paths(folders).map(|folders| (name.clone(), folders)));
        } else {
            kept.push((name.clone(), value.clone()));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let text = |text: OsString| text.into_string().unwrap();
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        cleaned(variables).into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn pairs(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[cfg(unix)]
    #[test]
    fn what_an_app_image_sets_stays_with_the_app() {
        let variables = [
            ("HOME", "/home/me"),
            ("APPDIR", "/tmp/.mount_app"),
            ("PATH", "/tmp/.mount_app/usr/bin:/usr/bin:/tmp/.mount_apple/bin"),
            ("PYTHONHOME", "/tmp/.mount_app/usr"),
            ("LD_LIBRARY_PATH", "/tmp/.mount_app/usr/lib"),
            ("OPENCLAW_HOME", "/srv/claw"),
        ];
        let kept = [("HOME", "/home/me"), ("PATH", "/usr/bin:/tmp/.mount_apple/bin"), ("OPENCLAW_HOME", "/srv/claw")];
        assert_eq!(clean(&variables), pairs(&kept));
    }

    #[test]
    fn a_variable_that_was_saved_is_as_it_was() {
        let variables = [("LD_LIBRARY_PATH", "/app"), ("LD_LIBRARY_PATH_ORIG", "/mine")];
        let kept = [("LD_LIBRARY_PATH", "/mine"), ("LD_LIBRARY_PATH_ORIG", "/mine")];
        assert_eq!(clean(&variables), pairs(&kept));
    }

    #[test]
    fn a_command_line_keeps_what_is_quoted_together() {
        let command = SidecarCommand::parse(r#"'/opt/my app/python' -m "sidecar" --log-level  info"#).unwrap();
        assert_eq!(command.program, PathBuf::from("/opt/my app/python"));
        assert_eq!(command.args, ["-m", "sidecar", "--log-level", "info"]);
        assert!(SidecarCommand::parse("  ").is_none());
    }

    #[test]
    fn the_name_of_a_file_needs_no_quotes() {
        let folder = env::temp_dir().join(format!("clawpal sidecar {}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join("the sidecar");
        std::fs::write(&program, "").unwrap();
        let command = SidecarCommand::parse(program.to_str().unwrap()).unwrap();
        assert_eq!((command.program, command.args.len()), (program, 0));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
