//! Gets one file over the network with whatever client the machine has.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Kind, Result};
use crate::run;

/// Seconds to wait for a connection, and for the whole file. Releases are about one megabyte; a
/// site that cannot be reached must not hold up the next way to get the file.
const CONNECT: &str = "5";
const WHOLE: &str = "90";

const PYTHON: &str = "import sys,urllib.request as u,shutil
try:
    with u.urlopen(sys.argv[1], timeout=float(sys.argv[3])) as r, open(sys.argv[2], 'wb') as f:
        shutil.copyfileobj(r, f)
except Exception as e:
    sys.exit(str(e))";

/// Writes what `url` gives to `dest`, by curl, wget or python3: the first that is installed.
///
/// # Errors
/// `Source` when none is installed or the client fails; it tells what the client said.
pub fn get(url: &str, dest: &Path) -> Result<()> {
    let mut cmd;
    if run::exists("curl") {
        cmd = Command::new("curl");
        cmd.args(["--fail", "--silent", "--show-error", "--location"]);
        cmd.args([
            "--connect-timeout",
            CONNECT,
            "--max-time",
            WHOLE,
            "--output",
        ])
        .arg(dest)
        .arg(url);
    } else if run::exists("wget") {
        cmd = Command::new("wget");
        cmd.args([
            "--no-verbose",
            "--tries=1",
            &format!("--timeout={CONNECT}"),
            "-O",
        ])
        .arg(dest)
        .arg(url);
    } else if run::exists("python3") {
        cmd = Command::new("python3");
        cmd.args(["-c", PYTHON, url]).arg(dest).arg(CONNECT);
    } else {
        return Err(Error::new(
            Kind::Source,
            "none of curl, wget, python3 is installed",
        ));
    }
    run::last_word(&mut cmd).map(drop)
}
