//! pprof's format: profile.proto of github.com/google/pprof, gzipped.

use std::collections::HashMap;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::write::GzEncoder;
use flate2::Compression;
use prost::Message;

use super::merged::Profile;

/// The messages of profile.proto; fields that heap profiles do not have are left out.
pub mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub period: i64,
        #[prost(int64, tag = "14")]
        pub default_sample_type: i64,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct ValueType {
        #[prost(int64, tag = "1")]
        pub kind: i64,
        #[prost(int64, tag = "2")]
        pub unit: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub value: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Mapping {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub memory_limit: u64,
        #[prost(int64, tag = "5")]
        pub filename: i64,
        #[prost(int64, tag = "6")]
        pub build_id: i64,
        #[prost(bool, tag = "7")]
        pub has_functions: bool,
        #[prost(bool, tag = "8")]
        pub has_filenames: bool,
        #[prost(bool, tag = "9")]
        pub has_line_numbers: bool,
        #[prost(bool, tag = "10")]
        pub has_inline_frames: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Location {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub address: u64,
        #[prost(message, repeated, tag = "4")]
        pub line: Vec<Line>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Line {
        #[prost(uint64, tag = "1")]
        pub function_id: u64,
        #[prost(int64, tag = "2")]
        pub line: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Function {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(int64, tag = "2")]
        pub name: i64,
        #[prost(int64, tag = "3")]
        pub system_name: i64,
        #[prost(int64, tag = "4")]
        pub filename: i64,
    }
}

/// The types of the four values of a sample, as Go's heap profiles have them, and their units.
const TYPES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];

/// Room for each module among the addresses: files lie elsewhere in each process, so they are laid
/// out anew, one behind the other.
const ROOM: u64 = 1 << 40;

/// Strings, each once, by number.
struct Strings {
    all: Vec<String>,
    numbers: HashMap<String, i64>,
}

impl Strings {
    fn number(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.all.len() as i64;
        self.all.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// The message of a profile.
pub fn message(profile: &Profile) -> proto::Profile {
    let mut strings = Strings {
        all: Vec::new(),
        numbers: HashMap::new(),
    };
    // The first must be the empty one.
    strings.number("");
    let mut made = proto::Profile {
        sample_type: TYPES
            .map(|(kind, unit)| value_type(&mut strings, kind, unit))
            .into(),
        period_type: Some(value_type(&mut strings, "space", "bytes")),
        period: profile.mean as i64,
        default_sample_type: strings.number("inuse_space"),
        duration_nanos: profile.nanoseconds as i64,
        time_nanos: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos() as i64),
        ..proto::Profile::default()
    };
    mappings(profile, &mut strings, &mut made);
    locations(profile, &mut strings, &mut made);
    for (stack, counts) in &profile.stacks {
        let of = |sum: super::raw::Sum| [sum.objects, sum.bytes].map(|n| n.round() as i64);
        made.sample.push(proto::Sample {
            location_id: stack.iter().map(|&number| number as u64 + 1).collect(),
            value: [of(counts.allocated), of(counts.live)].concat(),
        });
    }
    made.string_table = strings.all;
    made
}

fn value_type(strings: &mut Strings, kind: &str, unit: &str) -> proto::ValueType {
    proto::ValueType {
        kind: strings.number(kind),
        unit: strings.number(unit),
    }
}

/// A mapping for each module.
fn mappings(profile: &Profile, strings: &mut Strings, made: &mut proto::Profile) {
    for (number, module) in profile.modules.iter().enumerate() {
        let id = number as u64 + 1;
        made.mapping.push(proto::Mapping {
            id,
            memory_start: id * ROOM,
            memory_limit: (id + 1) * ROOM,
            filename: strings.number(&module.path.to_string_lossy()),
            build_id: strings.number(&module.build_id),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
    }
}

fn locations(profile: &Profile, strings: &mut Strings, made: &mut proto::Profile) {
    let mut functions = HashMap::new();
    for (number, location) in profile.locations.iter().enumerate() {
        let mut line = Vec::new();
        for frame in &location.frames {
            let name = strings.number(&frame.function);
            let file = strings.number(frame.file.as_deref().unwrap_or(""));
            let id = *functions.entry((name, file)).or_insert_with(|| {
                let id = made.function.len() as u64 + 1;
                made.function.push(proto::Function {
                    id,
                    name,
                    system_name: name,
                    filename: file,
                });
                id
            });
            line.push(proto::Line {
                function_id: id,
                line: i64::from(frame.line),
            });
        }
        let mapping_id = location.module.map_or(0, |module| module as u64 + 1);
        made.location.push(proto::Location {
            id: number as u64 + 1,
            mapping_id,
            address: mapping_id * ROOM + location.address,
            line,
        });
    }
}

/// The file: the message, gzipped.
pub fn file(profile: &Profile) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = gzip.write_all(&message(profile).encode_to_vec());
    gzip.finish().unwrap_or_default()
}
