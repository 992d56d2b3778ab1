//! Strings with `${…}` parts, and JSON trees of them.

use minijinja::Value;

use super::{Expr, ExprError, Names, is_empty, to_json, to_text};

/// A string of a request. A template that is one single `${expr}` keeps the type of its value.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
    /// Byte offset in the connector file.
    pub at: usize,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Expr(Expr),
}

impl Template {
    /// Compiles `text`; `locate` tells where a piece of it stands in the file.
    pub fn compile(text: &str, names: &Names, locate: &dyn Fn(&str) -> usize) -> Result<Template, (usize, ExprError)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let body = &rest[start + 2..];
            let Some(end) = closing_brace(body) else {
                return Err((
                    locate(text),
                    ExprError::new(format!("`{text}` has a `${{` without its `}}`")),
                ));
            };
            let source = &body[..end];
            let at = locate(source);
            parts.push(Part::Expr(
                Expr::compile(source, at, names).map_err(|error| (at, error))?,
            ));
            rest = &body[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template {
            parts,
            at: locate(text),
        })
    }

    /// The expressions in it, for checks at load.
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.parts
            .iter()
            .filter_map(|part| if let Part::Expr(expr) = part { Some(expr) } else { None })
    }

    pub fn is_constant(&self) -> bool {
        self.expressions().next().is_none()
    }

    /// Rendered text; parts that are nothing vanish.
    pub fn render(&self, scope: &Value) -> Result<String, ExprError> {
        self.render_with(scope, |text| Ok(text.to_owned()))
    }

    /// Rendered with every computed part passed through `escape`.
    pub fn render_with(
        &self,
        scope: &Value,
        escape: impl Fn(&str) -> Result<String, ExprError>,
    ) -> Result<String, ExprError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Expr(expr) => out.push_str(&escape(&plain(&expr.eval(scope)?))?),
            }
        }
        Ok(out)
    }

    /// Like [`Template::render`], but a template that is one single expression without a value is `None`: the query
    /// parameter or header it stands for is left out.
    pub fn render_optional(&self, scope: &Value) -> Result<Option<String>, ExprError> {
        if let [Part::Expr(expr)] = self.parts.as_slice() {
            let value = expr.eval(scope)?;
            return Ok((!value.is_undefined() && !value.is_none()).then(|| plain(&value)));
        }
        self.render(scope).map(Some)
    }

    /// Like [`Template::render_optional`], but a list makes a text of each of its items: a query repeats the key.
    pub fn render_each(&self, scope: &Value) -> Result<Vec<String>, ExprError> {
        if let [Part::Expr(expr)] = self.parts.as_slice() {
            let value = expr.eval(scope)?;
            if value.kind() == minijinja::value::ValueKind::Seq {
                let items = value.try_iter().map_err(|error| ExprError::new(error.to_string()))?;
                return Ok(items.map(|item| plain(&item)).collect());
            }
        }
        Ok(self.render_optional(scope)?.into_iter().collect())
    }

    /// As a JSON value: typed for one single expression, else text. Undefined is `None`.
    fn render_json(&self, scope: &Value) -> Result<Option<serde_json::Value>, ExprError> {
        if let [Part::Expr(expr)] = self.parts.as_slice() {
            let value = expr.eval(scope)?;
            return Ok((!value.is_undefined()).then(|| to_json(&value)));
        }
        self.render(scope).map(|text| Some(serde_json::Value::String(text)))
    }
}

fn plain(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    match to_text(value) {
        Some(text) => text,
        // `false` is "nothing" in data, but a request says what it means.
        None if !is_empty(value) || value.kind() == minijinja::value::ValueKind::Bool => value.to_string(),
        None => String::new(),
    }
}

/// The byte index of the brace that closes an expression: quotes and inner braces are skipped.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    let mut escaped = false;
    for (i, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth == 0 => return Some(i),
            (None, b'}') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A JSON body whose strings are templates: a value with quotes in it cannot break out of its place.
#[derive(Debug)]
pub enum Tree {
    Fixed(serde_json::Value),
    Text(Template),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    pub fn compile(
        json: &serde_json::Value,
        names: &Names,
        locate: &dyn Fn(&str) -> usize,
    ) -> Result<Tree, (usize, ExprError)> {
        use serde_json::Value as Json;
        Ok(match json {
            Json::String(text) => Tree::Text(Template::compile(text, names, locate)?),
            Json::Array(list) => Tree::List(
                list.iter()
                    .map(|item| Tree::compile(item, names, locate))
                    .collect::<Result<_, _>>()?,
            ),
            Json::Object(map) => Tree::Map(
                map.iter()
                    .map(|(key, item)| Ok((key.clone(), Tree::compile(item, names, locate)?)))
                    .collect::<Result<_, _>>()?,
            ),
            fixed => Tree::Fixed(fixed.clone()),
        })
    }

    /// Whether one of its expressions is such a one.
    pub fn any(&self, is: &dyn Fn(&Expr) -> bool) -> bool {
        match self {
            Tree::Fixed(_) => false,
            Tree::Text(template) => template.expressions().any(is),
            Tree::List(list) => list.iter().any(|item| item.any(is)),
            Tree::Map(pairs) => pairs.iter().any(|(_, item)| item.any(is)),
        }
    }

    /// An undefined leaf is left out of its object and null in its list.
    pub fn render(&self, scope: &Value) -> Result<serde_json::Value, ExprError> {
        self.render_leaf(scope)
            .map(|value| value.unwrap_or(serde_json::Value::Null))
    }

    fn render_leaf(&self, scope: &Value) -> Result<Option<serde_json::Value>, ExprError> {
        Ok(Some(match self {
            Tree::Fixed(value) => value.clone(),
            Tree::Text(template) => return template.render_json(scope),
            Tree::List(list) => {
                serde_json::Value::Array(list.iter().map(|item| item.render(scope)).collect::<Result<_, _>>()?)
            }
            Tree::Map(pairs) => {
                let mut map = serde_json::Map::new();
                for (key, item) in pairs {
                    if let Some(value) = item.render_leaf(scope)? {
                        map.insert(key.clone(), value);
                    }
                }
                serde_json::Value::Object(map)
            }
        }))
    }
}
