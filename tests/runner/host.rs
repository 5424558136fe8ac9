//! Programs of the host that no one here wrote, under LD_PRELOAD: same output as without.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::execute::{self, Finished};
use crate::mode::{libraries, on_path, present};
use crate::Outcome;

/// One shell script; run twice in fresh folders, once with the library preloaded.
pub struct HostTest {
    pub name: &'static str,
    /// Programs it cannot do without.
    needs: &'static [&'static str],
    script: &'static str,
}

/// Seconds for one run of a script.
const LIMIT: u64 = 60;

impl HostTest {
    pub fn run(&self) -> Outcome {
        if let Some(missing) = self.needs.iter().find(|name| !on_path(name)) {
            return Outcome::Skipped(format!("{missing} is not installed"));
        }
        self.compare()
            .map_or_else(Outcome::Failed, |()| Outcome::Passed)
    }

    fn compare(&self) -> Result<(), String> {
        let library = present(libraries().join("libbyssal.so"))?;
        let plain = self.once(None)?;
        if plain.code() != Some(0) {
            return Err(format!(
                "fails without the library too:\n{}",
                plain.describe()
            ));
        }
        let ours = self.once(Some(&library))?;
        if ours.code() != Some(0) || ours.stderr.contains("cannot be preloaded") {
            return Err(ours.describe());
        }
        if ours.stdout != plain.stdout {
            let differing = ours
                .stdout
                .lines()
                .zip(plain.stdout.lines())
                .find(|(a, b)| a != b);
            return Err(format!(
                "output differs ({} against {} bytes), first line (ours, plain): {differing:?}\n{}",
                ours.stdout.len(),
                plain.stdout.len(),
                ours.describe()
            ));
        }
        Ok(())
    }

    /// One run in a fresh folder. The folder has the same name both times (output may show it).
    fn once(&self, library: Option<&Path>) -> Result<Finished, String> {
        let outer = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let folder = outer.path().join("work");
        fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut command = Command::new("sh");
        command.args(["-e", "-c", self.script]).current_dir(&folder);
        command
            .env("TESTS", env!("CARGO_MANIFEST_DIR"))
            .env("LC_ALL", "C");
        command.env("HOME", &folder).env("PYTHONHASHSEED", "0");
        command.env_remove("LD_PRELOAD");
        if let Some(library) = library {
            command.env("LD_PRELOAD", library);
        }
        execute::run(command, Duration::from_secs(LIMIT))
    }
}

/// All of them.
pub fn tests() -> Vec<HostTest> {
    vec![
        HostTest {
            name: "shell_pipeline",
            needs: &["find", "sort", "awk", "sed", "xargs", "tar", "gzip"],
            script: PIPELINE,
        },
        HostTest {
            name: "python3",
            needs: &["python3"],
            script: PYTHON,
        },
        HostTest {
            name: "git",
            needs: &["git"],
            script: GIT,
        },
        HostTest {
            name: "malloc_rules",
            needs: &["gcc"],
            script: MALLOC_RULES,
        },
        HostTest {
            name: "gcc",
            needs: &["gcc"],
            script: GCC,
        },
        HostTest {
            name: "g++",
            needs: &["g++"],
            script: GXX,
        },
        HostTest {
            name: "perl",
            needs: &["perl"],
            script: PERL,
        },
        HostTest {
            name: "rustc",
            needs: &["rustc"],
            script: RUSTC,
        },
    ]
}

const PIPELINE: &str = r#"
find /usr/include -name '*.h' -size -200k | sort | head -n 500 > list
xargs cat < list | tr -cs 'A-Za-z_' '\n' | sort -S 20M --parallel=2 | uniq -c | sort -rn | head -n 200
awk '{ n = split($0, part, "/"); for (i = 1; i <= n; i++) count[part[i]]++; names[NR] = $0 }
     END { for (p in count) print count[p], p; for (i = NR; i > NR - 20; i--) print names[i] }' list | sort
xargs sed -n 's/^#define  *\([A-Z_]*\) .*/\1/p' < list | sort -u | wc -l
tar -cPf - -T list | gzip -1 | gzip -dc | cksum
bash -c 'declare -A a; for i in {1..20000}; do a[k$((i % 997))]+=x; done; echo ${#a[@]} ${#a[k5]}'
"#;

const PYTHON: &str = r#"
cat > work.py <<'END'
import concurrent.futures, hashlib, json, multiprocessing, re, subprocess, sys, threading, zlib

def build(seed, n):
    x, out = seed, []
    for i in range(n):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append({"id": x >> 40, "text": "v" * (x >> 33 & 255), "list": list(range(x >> 60))})
    return out

def work(seed):
    data = build(seed, 1500)
    text = json.dumps(data, sort_keys=True)
    assert json.loads(text) == data
    blob = zlib.compress(text.encode(), 6)
    assert zlib.decompress(blob).decode() == text
    return hashlib.sha256(text.encode()).hexdigest(), len(re.findall(r"v{7,}", text))

if __name__ == "__main__":
    print(work(1))
    results, lock = {}, threading.Lock()
    def thread(seed):
        value = work(seed)
        with lock:
            results[seed] = value
    for wave in range(3):
        threads = [threading.Thread(target=thread, args=(wave * 8 + i,)) for i in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
    print(sorted(results.items()))
    # fork with threads alive in the parent
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        pending = [threads.submit(work, s) for s in range(20)]
        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(pool.map(work, range(100, 112)))
        print([p.result() for p in pending])
    print(subprocess.run([sys.executable, "-c", "print('x' * 100000)"], capture_output=True).stdout[:10])
    big = [bytearray(1 << 20) for _ in range(60)]
    for i, b in enumerate(big): b[-1] = i; b.extend(b"y" * 300000)
    print(sum(len(b) for b in big), sum(b[(1 << 20) - 1] for b in big))
END
python3 work.py
"#;

const GIT: &str = r#"
export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
git init -q -b main repo
cd repo
for i in 1 2 3 4 5 6; do
    mkdir -p dir$i
    for j in 1 2 3 4 5 6 7 8 9 10; do seq $i $((i * j * 50)) > dir$i/file$j; done
    git add -A
    git commit -q -m "commit $i"
done
git checkout -q -b side HEAD~3
echo side >> dir1/file1
git commit -q -a -m side
git merge -q -m merge main
git log --format='%H %s %p' --stat
git diff HEAD~2 | cksum
git gc -q --aggressive
git fsck --full --strict
git blame -s dir1/file1 | tail -n 5
git clone -q . ../clone
git -C ../clone rev-parse HEAD
git grep -n 99 | cksum
"#;

/// What libcs differ in must be as without the library.
const MALLOC_RULES: &str = r#"
gcc -fno-builtin -O1 -o rules "$TESTS/programs/api_host.c"
./rules
"#;

const GCC: &str = r#"
cp "$TESTS"/programs/*.c "$TESTS"/programs/*.h .
for f in api_realloc random_live_set remote_free; do gcc -O2 -S -pthread -o $f.s $f.c; cat $f.s | cksum; done
gcc -O2 -o prog api_realloc.c
printf '#include <stdio.h>\nint main(void){puts("built under preload");}\n' > hello.c
gcc -O3 -flto -o hello hello.c
./hello
"#;

const GXX: &str = r#"
cat > t.cc <<'END'
#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <unordered_map>
int main() {
  std::map<std::string, int> m; std::unordered_map<int, std::string> u;
  for (int i = 0; i < 1000; i++) { m[std::to_string(i * 7919 % 1000)] = i; u[i] = std::string(i, 'x'); }
  long n = 0; for (auto &p : m) n += p.second * (long)u[p.second].size();
  std::cout << n << "\n";
}
END
g++ -O1 -S -o t.s t.cc
cksum < t.s
g++ -o t t.s
./t
"#;

const PERL: &str = r#"
perl -e '
my (%h, @a); my $x = 12345;
for my $i (1 .. 120000) { $x = ($x * 1103515245 + 12345) % 2147483648; $h{$x % 5003} .= chr(97 + $x % 26); push @a, $x; splice(@a, 0, 500) if @a > 3000; }
print join(",", map { "$_=" . length $h{$_} } (sort { $a <=> $b } keys %h)[0 .. 50]), "\n";
my $s = join " ", sort { $a <=> $b } @a; my $n = () = $s =~ /7+/g; print "$n ", length $s, "\n";
for my $k (1 .. 5) { my $p = fork; if (!$p) { my @b = map { "z" x $_ } 1 .. 2000; exit(scalar(@b) == 2000 ? 0 : 1) } waitpid $p, 0; print "child $?\n" }'
"#;

const RUSTC: &str = r#"
cat > t.rs <<'END'
use std::collections::{BTreeMap, HashMap};
pub fn f(n: usize) -> BTreeMap<String, Vec<u32>> {
    let mut h: HashMap<u32, String> = HashMap::new();
    let mut out = BTreeMap::new();
    for i in 0..n as u32 {
        h.insert(i, format!("{i:x}"));
        out.entry(format!("{}", i % 13)).or_insert_with(Vec::new).push(i);
    }
    out.insert(h.len().to_string(), h.into_keys().collect());
    out
}
fn main() {
    let t: Vec<_> = (0..4).map(|i| std::thread::spawn(move || f(1000 * i).len())).collect();
    println!("{:?}", t.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>());
}
END
rustc --edition 2021 -O -C codegen-units=4 --emit asm,link -o t t.rs
./t
"#;
