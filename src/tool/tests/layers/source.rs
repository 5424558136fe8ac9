//! A crate as its sources tell it: modules, the paths that they name, functions and types.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{Parse, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A number of a module in `Sources::modules`. The crate's root is 0.
pub type Id = usize;

pub const ROOT: Id = 0;

/// One source file. What stands in a module within the file (`mod x { }`) belongs to the file.
pub struct Module {
    /// The names from the root, joined by `::`; empty for the root.
    pub path: String,
    /// Relative to the directory of `lib.rs`.
    pub file: String,
}

/// Where something is declared: the file, and the module within it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub module: Id,
    /// The names from the root, joined by `::`.
    pub path: String,
}

/// A path in the text of one module that leads to another one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub from: Id,
    pub line: usize,
    pub to: Id,
    pub text: String,
}

/// What a function belongs to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// It is a free function.
    Module,
    /// An `impl` block of a type, by the type's name without its module and arguments.
    Type(String),
    /// An `impl` block of a trait for a type: the trait, then the type.
    TraitFor(String, String),
    /// A body that a trait declares for all who implement it.
    Trait(String),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    pub place: Place,
    pub owner: Owner,
    pub name: String,
    /// A constant or static, whose body calls functions as well.
    pub constant: bool,
}

/// An `impl` block, by the lines of its head.
pub struct Impl {
    pub place: Place,
    pub lines: (usize, usize),
    pub owner: Owner,
}

/// The lines of the attributes of a type: `derive` makes `impl` blocks that stand there.
pub struct Derived {
    pub place: Place,
    pub lines: (usize, usize),
    pub name: String,
}

#[derive(Default)]
pub struct Sources {
    pub modules: Vec<Module>,
    pub named: BTreeSet<Named>,
    /// By their names.
    pub functions: HashMap<String, BTreeSet<Function>>,
    pub impls: Vec<Impl>,
    pub derived: Vec<Derived>,
    pub types: HashMap<String, Vec<Place>>,
    pub traits: HashMap<String, Vec<Place>>,
    /// Names of `macro_rules!`, with the module where each stands.
    macros: HashMap<String, Id>,
    /// Modules by their paths, those within a file too.
    paths: HashMap<String, Id>,
    /// What `use` makes known in a module: its path, then the local name.
    imports: HashMap<String, HashMap<String, Vec<String>>>,
}

impl Sources {
    /// Reads the crate whose root is `lib.rs` in `dir`, with the `cfg` that `set` lists, each as
    /// `rustc --print cfg` writes it.
    pub fn read(dir: &Path, set: &BTreeSet<String>) -> Result<Self, String> {
        let mut sources = Self::default();
        let mut files = vec![];
        sources.open(dir, set, String::new(), "lib.rs".into(), &mut files)?;
        for (id, path, items) in &files {
            Reader::new(&mut sources, set, *id, path, Pass::Declare).items(items);
        }
        for (id, path, items) in &files {
            Reader::new(&mut sources, set, *id, path, Pass::Resolve).items(items);
        }
        Ok(sources)
    }

    /// Reads a file and, as its `mod` items tell, those below it.
    fn open(
        &mut self,
        dir: &Path,
        set: &BTreeSet<String>,
        path: String,
        file: PathBuf,
        files: &mut Vec<(Id, String, Vec<syn::Item>)>,
    ) -> Result<(), String> {
        let text = fs::read_to_string(dir.join(&file)).map_err(|e| format!("{file:?}: {e}"))?;
        let parsed = syn::parse_file(&text).map_err(|e| format!("{file:?}: {e}"))?;
        let id = self.modules.len();
        self.paths.insert(path.clone(), id);
        self.modules.push(Module {
            path: path.clone(),
            file: file.to_str().ok_or("a name that is not UTF-8")?.to_owned(),
        });
        for item in &parsed.items {
            let syn::Item::Mod(module) = item else {
                continue;
            };
            if module.content.is_some() || !active(item, set)? {
                continue;
            }
            if module.attrs.iter().any(|a| a.path().is_ident("path")) {
                return Err(format!("{file:?}: a module with #[path] is not understood"));
            }
            let name = module.ident.to_string();
            let below = below(dir, &file, &name)?;
            self.open(dir, set, joined(&path, &name), below, files)?;
        }
        files.push((id, path, parsed.items));
        Ok(())
    }

    /// The module that a path from the root leads to: the longest part of it that is one.
    fn leads_to(&self, path: &[String]) -> Option<Id> {
        if let [name] = path {
            if let Some(&id) = self.macros.get(name) {
                return Some(id);
            }
        }
        (0..=path.len())
            .rev()
            .find_map(|n| self.paths.get(&path[..n].join("::")).copied())
    }
}

/// Where `mod name;` in `file` finds its own file.
fn below(dir: &Path, file: &Path, name: &str) -> Result<PathBuf, String> {
    let parent = file.parent().unwrap_or(Path::new(""));
    let base = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "mod") | None => parent.to_owned(),
        Some(stem) => parent.join(stem),
    };
    let choices = [
        base.join(format!("{name}.rs")),
        base.join(name).join("mod.rs"),
    ];
    choices
        .into_iter()
        .find(|path| dir.join(path).is_file())
        .ok_or_else(|| format!("{file:?}: no file of mod {name}"))
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}::{name}")
    }
}

/// The attributes that a piece of text begins with.
fn attributes(node: &impl ToTokens) -> Vec<syn::Attribute> {
    let mut tokens = node.to_token_stream().into_iter();
    match tokens.next() {
        Some(TokenTree::Punct(first)) if first.as_char() == '#' => {}
        _ => return vec![],
    }
    let parser = |input: syn::parse::ParseStream<'_>| {
        let attributes = input.call(syn::Attribute::parse_outer)?;
        TokenStream::parse(input).map(|_| attributes)
    };
    parser.parse2(node.to_token_stream()).unwrap_or_default()
}

/// Whether a piece of text is compiled with these `cfg`.
fn active(node: &impl ToTokens, set: &BTreeSet<String>) -> Result<bool, String> {
    for attribute in attributes(node) {
        if attribute.path().is_ident("cfg") {
            let meta = attribute.parse_args().map_err(|e| e.to_string())?;
            if !holds(&meta, set)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether a condition of `cfg` holds.
fn holds(meta: &syn::Meta, set: &BTreeSet<String>) -> Result<bool, String> {
    let name = meta.path().require_ident().map_err(|e| e.to_string())?;
    match meta {
        syn::Meta::Path(_) => Ok(set.contains(&name.to_string())),
        syn::Meta::NameValue(pair) => {
            let value = pair.value.to_token_stream();
            Ok(set.contains(&format!("{name}={value}")))
        }
        syn::Meta::List(list) => {
            let parts = list
                .parse_args_with(Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
                .map_err(|e| e.to_string())?;
            let parts: Vec<bool> = parts
                .iter()
                .map(|part| holds(part, set))
                .collect::<Result<_, _>>()?;
            match name.to_string().as_str() {
                "all" => Ok(parts.iter().all(|&part| part)),
                "any" => Ok(parts.iter().any(|&part| part)),
                "not" => Ok(!parts[0]),
                other => Err(format!("cfg({other}(..)) is not understood")),
            }
        }
    }
}

/// The name of a type without references, pointers, module and arguments.
fn type_name(ty: &syn::Type) -> String {
    match ty {
        syn::Type::Path(path) => match path.path.segments.last() {
            Some(last) => last.ident.to_string(),
            None => String::new(),
        },
        syn::Type::Reference(inner) => type_name(&inner.elem),
        syn::Type::Ptr(inner) => type_name(&inner.elem),
        syn::Type::Paren(inner) => type_name(&inner.elem),
        _ => String::new(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Pass {
    /// Collects what is declared.
    Declare,
    /// Finds where paths lead, with what all files declare.
    Resolve,
}

struct Reader<'a> {
    sources: &'a mut Sources,
    set: &'a BTreeSet<String>,
    /// The module that the reader stands in.
    place: Place,
    owner: Owner,
    pass: Pass,
}

impl<'a> Reader<'a> {
    fn new(
        sources: &'a mut Sources,
        set: &'a BTreeSet<String>,
        id: Id,
        path: &str,
        pass: Pass,
    ) -> Self {
        let (path, owner) = (path.to_owned(), Owner::Module);
        Self {
            sources,
            set,
            place: Place { module: id, path },
            owner,
            pass,
        }
    }

    fn items(&mut self, items: &[syn::Item]) {
        for item in items {
            self.visit_item(item);
        }
    }

    fn active(&self, node: &impl ToTokens) -> bool {
        active(node, self.set).unwrap_or_else(|why| panic!("{}: {why}", self.place.path))
    }

    /// Works on what belongs to `owner`.
    fn within(&mut self, owner: Owner, work: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        work(self);
        self.owner = outer;
    }

    fn function(&mut self, name: &syn::Ident, constant: bool) {
        if self.pass == Pass::Declare && name != "_" {
            let name = name.to_string();
            let same_name = self.sources.functions.entry(name.clone()).or_default();
            same_name.insert(Function {
                place: self.place.clone(),
                owner: self.owner.clone(),
                name,
                constant,
            });
        }
    }

    /// A type, a trait or a macro is declared here.
    fn declare(&mut self, item: &syn::Item) {
        let (name, attrs) = match item {
            syn::Item::Struct(x) => (&x.ident, &x.attrs),
            syn::Item::Enum(x) => (&x.ident, &x.attrs),
            syn::Item::Union(x) => (&x.ident, &x.attrs),
            syn::Item::Type(x) => (&x.ident, &x.attrs),
            syn::Item::Trait(x) => {
                let traits = self.sources.traits.entry(x.ident.to_string());
                traits.or_default().push(self.place.clone());
                return;
            }
            syn::Item::Macro(x) => {
                if let Some(name) = &x.ident {
                    self.sources
                        .macros
                        .insert(name.to_string(), self.place.module);
                }
                return;
            }
            _ => return,
        };
        let types = self.sources.types.entry(name.to_string());
        types.or_default().push(self.place.clone());
        for attribute in attrs {
            let span = attribute.span();
            self.sources.derived.push(Derived {
                place: self.place.clone(),
                lines: (span.start().line, span.end().line),
                name: name.to_string(),
            });
        }
    }

    /// The path from the root that a path in this module's text means, if it begins with a module.
    fn absolute(&self, segments: &[String], is_use: bool) -> Option<Vec<String>> {
        let mut here: Vec<String> = self.place.path.split("::").map(str::to_owned).collect();
        here.retain(|name| !name.is_empty());
        let mut rest = segments;
        let first = rest.first()?;
        if first == "crate" {
            return Some(rest[1..].to_vec());
        }
        if first == "self" || first == "super" {
            while let Some(first) = rest.first() {
                match first.as_str() {
                    "self" => {}
                    "super" => drop(here.pop()?),
                    _ => break,
                }
                rest = &rest[1..];
            }
            here.extend_from_slice(rest);
            return Some(here);
        }
        let child = joined(&self.place.path, first);
        if (is_use || segments.len() > 1) && self.sources.paths.contains_key(&child) {
            here.extend_from_slice(rest);
            return Some(here);
        }
        let imported = self.sources.imports.get(&self.place.path)?.get(first)?;
        Some(imported.iter().chain(&rest[1..]).cloned().collect())
    }

    /// A path stands in the text.
    fn name(&mut self, segments: &[String], line: usize, is_use: bool) {
        if self.pass != Pass::Resolve {
            return;
        }
        let Some(path) = self.absolute(segments, is_use) else {
            return;
        };
        match self.sources.leads_to(&path) {
            Some(to) if to != self.place.module => {
                let (from, text) = (self.place.module, segments.join("::"));
                self.sources.named.insert(Named {
                    from,
                    line,
                    to,
                    text,
                });
            }
            _ => {}
        }
    }

    fn import(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| {
            let mut path = before.to_vec();
            if ident != "self" || path.is_empty() {
                path.push(ident.to_string());
            }
            path
        };
        match tree {
            syn::UseTree::Path(part) => self.import(&part.tree, &with(&part.ident)),
            syn::UseTree::Group(group) => {
                for part in &group.items {
                    self.import(part, before);
                }
            }
            syn::UseTree::Glob(star) => self.name(before, star.span().start().line, true),
            syn::UseTree::Name(leaf) => {
                let path = with(&leaf.ident);
                let local = path.last().cloned().unwrap_or_default();
                self.imported(&path, local, leaf.span().start().line);
            }
            syn::UseTree::Rename(leaf) => {
                let path = with(&leaf.ident);
                self.imported(&path, leaf.rename.to_string(), leaf.span().start().line);
            }
        }
    }

    fn imported(&mut self, path: &[String], local: String, line: usize) {
        if self.pass == Pass::Resolve {
            return self.name(path, line, true);
        }
        if let Some(path) = self.absolute(path, true) {
            let imports = self
                .sources
                .imports
                .entry(self.place.path.clone())
                .or_default();
            imports.insert(local, path);
        }
    }

    /// The paths in what a macro is given, whose grammar is the macro's own.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = vec![];
        let mut colons = 0;
        let mut line = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.found(&mut path, line);
                    }
                    colons = 0;
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                }
                other => {
                    self.found(&mut path, line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.found(&mut path, line);
    }

    fn found(&mut self, path: &mut Vec<String>, line: usize) {
        if path.len() > 1 {
            self.name(path, line, false);
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !self.active(item) {
            return;
        }
        if self.pass == Pass::Declare {
            self.declare(item);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let Some((_, items)) = &module.content else {
            return;
        };
        let outer = self.place.path.clone();
        self.place.path = joined(&outer, &module.ident.to_string());
        self.sources
            .paths
            .insert(self.place.path.clone(), self.place.module);
        self.items(items);
        self.place.path = outer;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&item.tree, &[]);
        }
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        let name = type_name(&block.self_ty);
        let owner = match &block.trait_ {
            Some((_, path, _)) => {
                let last = path.segments.last().map(|last| last.ident.to_string());
                Owner::TraitFor(last.unwrap_or_default(), name)
            }
            None => Owner::Type(name),
        };
        if self.pass == Pass::Declare {
            let last = block.self_ty.span().end().line;
            self.sources.impls.push(Impl {
                place: self.place.clone(),
                lines: (block.impl_token.span.start().line, last),
                owner: owner.clone(),
            });
        }
        self.within(owner, |this| visit::visit_item_impl(this, block));
    }

    fn visit_item_trait(&mut self, block: &'ast syn::ItemTrait) {
        let owner = Owner::Trait(block.ident.to_string());
        self.within(owner, |this| visit::visit_item_trait(this, block));
    }

    fn visit_item_fn(&mut self, f: &'ast syn::ItemFn) {
        self.within(Owner::Module, |this| {
            this.function(&f.sig.ident, false);
            visit::visit_item_fn(this, f);
        });
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.function(&item.ident, true);
        visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.function(&item.ident, true);
        visit::visit_item_static(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if !self.active(item) {
            return;
        }
        match item {
            syn::ImplItem::Fn(f) => self.function(&f.sig.ident, false),
            syn::ImplItem::Const(c) => self.function(&c.ident, true),
            _ => {}
        }
        // What a body declares is no method.
        self.within(Owner::Module, |this| visit::visit_impl_item(this, item));
    }

    fn visit_trait_item(&mut self, item: &'ast syn::TraitItem) {
        if !self.active(item) {
            return;
        }
        match item {
            syn::TraitItem::Fn(f) if f.default.is_some() => self.function(&f.sig.ident, false),
            syn::TraitItem::Const(c) if c.default.is_some() => self.function(&c.ident, true),
            _ => {}
        }
        // What a body declares is no method.
        self.within(Owner::Module, |this| visit::visit_trait_item(this, item));
    }

    fn visit_stmt(&mut self, stmt: &'ast syn::Stmt) {
        if self.active(stmt) {
            visit::visit_stmt(self, stmt);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if self.active(field) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if self.active(field) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if self.active(variant) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if self.active(arm) {
            visit::visit_arm(self, arm);
        }
    }

    /// Attributes lead to no module, nor does who may see an item.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|part| part.ident.to_string());
            let names: Vec<String> = names.collect();
            self.name(&names, path.span().start().line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let line = call.path.span().start().line;
        if let Some(name) = call.path.get_ident() {
            if self.sources.macros.contains_key(&name.to_string()) {
                self.name(&["crate".to_owned(), name.to_string()], line, false);
            }
        } else {
            self.visit_path(&call.path);
        }
        self.tokens(call.tokens.clone());
    }
}
