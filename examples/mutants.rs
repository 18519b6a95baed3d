//! Breaks the program on purpose, one fault of `tests/faults/mutants.toml` after the other, and says whether the test that should notice did: what `./x mutants` calls.
//!
//! It works on a copy of the sources below `target/mutants`; the tree itself is not touched.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it runs the tests, and its output is what it is for"
)]

use serde::Deserialize;
use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

const LIST: &str = include_str!("../tests/faults/mutants.toml");
/// What a build needs of the tree.
const TREE: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "clippy.toml",
    "askama.toml",
    "benches",
    "src",
    "sql",
    "deploy",
    "tests",
    "examples",
    "README.md",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// What is broken, in a few words.
    name: String,
    file: String,
    /// Text of the file, there once.
    find: String,
    replace: String,
    /// The test that must fail.
    test: String,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = root.join("target/mutants");
    fs::create_dir_all(&copy)?;
    for name in TREE {
        let script = r#"rm -rf "$2/$3" && cp -a "$1/$3" "$2/$3""#;
        let arguments = [root.as_os_str(), copy.as_os_str(), name.as_ref()];
        let copied = Command::new("sh").args(["-c", script, "sh"]).args(arguments).status()?;
        if !copied.success() {
            return Err(format!("cannot copy {name}").into());
        }
    }
    let List { mutant } = toml::from_str(LIST)?;
    let chosen = |mutant: &&Mutant| {
        wanted.is_empty() || wanted.iter().any(|wanted| mutant.name.contains(wanted.as_str()))
    };
    let mut survivors = 0;
    for mutant in mutant.iter().filter(chosen) {
        let path = copy.join(&mutant.file);
        let text = fs::read_to_string(&path)?;
        fs::write(&path, text.replacen(&mutant.find, &mutant.replace, 1))?;
        let verdict = verdict(&copy, &mutant.test)?;
        fs::write(&path, text)?;
        survivors += usize::from(verdict != "killed");
        println!("{verdict:<9} {:<52} {}", mutant.name, mutant.test);
    }
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the test fails on the broken sources, which must compile.
fn verdict(copy: &Path, test: &str) -> Result<&'static str, Box<dyn Error>> {
    let (target, name) = match test.strip_prefix("lib:") {
        Some(name) => (["--lib", ""], name),
        None => (["--test", "it"], test),
    };
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["test", "--locked", "--quiet"])
            .args(target.iter().filter(|word| !word.is_empty()));
        cargo.args(arguments).current_dir(copy).env("CARGO_TARGET_DIR", copy.join("target"));
        cargo.stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    if !cargo(&["--no-run"])?.success() {
        return Ok("NO BUILD");
    }
    Ok(if cargo(&["--", "--exact", name])?.success() { "SURVIVED" } else { "killed" })
}
