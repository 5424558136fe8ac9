//! Short tables that stand in `docs/results/misuse.md` and are shown on other pages, too: each
//! between the lines `<!-- misuse NAME -->` and `<!-- end -->` there and here.

use std::fs;

use crate::allocator::root;

/// Where the tables are from.
const SOURCE: &str = "docs/results/misuse.md";
/// Where they are shown.
const PAGES: [&str; 2] = ["README.md", "docs/guarantees.md"];
const END: &str = "<!-- end -->";

/// A table with its marks.
pub fn marked(name: &str, table: &str) -> String {
    format!("<!-- misuse {name} -->\n{table}{END}\n")
}

/// The marked part of a page that begins with `mark`, with its marks.
fn part<'a>(page: &'a str, mark: &str) -> Option<&'a str> {
    let start = page.find(mark)?;
    let length = page[start..].find(END)? + END.len();
    Some(&page[start..start + length])
}

/// A page with its marked parts as the source has them.
fn renewed(page: &str, source: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = page;
    while let Some(start) = rest.find("<!-- misuse ") {
        let mark = rest[start..].lines().next().unwrap_or_default();
        let old = part(rest, mark).ok_or_else(|| format!("{mark} without {END}"))?;
        let new = part(source, mark).ok_or_else(|| format!("{SOURCE} has no {mark}"))?;
        text.push_str(&rest[..start]);
        text.push_str(new);
        rest = &rest[start + old.len()..];
    }
    text.push_str(rest);
    Ok(text)
}

/// Pages whose tables differ from the results; with `write` they are brought up to date.
///
/// # Errors
/// A file that cannot be read or written, a page without a table, a mark that the results lack.
pub fn stale(write: bool) -> Result<Vec<&'static str>, String> {
    let read = |name: &str| {
        fs::read_to_string(root().join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let source = read(SOURCE)?;
    let mut stale = Vec::new();
    for page in PAGES {
        let old = read(page)?;
        if !old.contains("<!-- misuse ") {
            return Err(format!("{page} has no table of {SOURCE}"));
        }
        let new = renewed(&old, &source).map_err(|error| format!("{page}: {error}"))?;
        if new != old {
            stale.push(page);
            if write {
                fs::write(root().join(page), new).map_err(|error| format!("{page}: {error}"))?;
            }
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_parts_are_renewed_and_nothing_else() {
        let source = format!("x\n{}y\n{}", marked("a", "1\n"), marked("b", "2\n"));
        let page = format!("p\n{}q\n", marked("b", "old\n"));
        let new = renewed(&page, &source).expect("a page");
        assert_eq!(new, format!("p\n{}q\n", marked("b", "2\n")));
        assert_eq!(renewed(&new, &source).as_ref(), Ok(&new));
        assert!(renewed(&marked("c", ""), &source).is_err());
        assert!(renewed("<!-- misuse a -->", &source).is_err());
    }
}
