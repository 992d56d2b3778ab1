//! Most expressions of a mapping pick fields and put them together: `item.name`, `[item.phone, item.mobile]|compact`,
//! `conn.base_url ~ '/' ~ item.id`. They are followed here as they are written. The engine compiles and checks them like
//! all others, but setting it up costs several times what these then do (docs/performance.md).

use minijinja::Value;

use super::filters;

/// An expression of paths, literals, lists, `~`, `or` and the filters of [`Filter`]; no calls, conditions or comparisons.
#[derive(Debug)]
pub(super) enum Direct {
    /// `name.field.field`; never empty.
    Path(Vec<String>),
    Literal(Value),
    List(Vec<Direct>),
    Filtered(Box<Direct>, Filter),
    Joined(Box<Direct>, Box<Direct>),
    Or(Box<Direct>, Box<Direct>),
}

#[derive(Debug)]
pub(super) enum Filter {
    Compact,
    First,
    Flatten,
    Join(String),
    Label,
    Replace(String, String),
    Split(String),
    String,
    Trim,
}

impl Direct {
    /// `None` for everything else. `text` is an expression that the engine has compiled.
    pub fn of(text: &str) -> Option<Direct> {
        let mut reader = Reader { rest: text };
        let found = reader.either()?;
        reader.rest.trim_start().is_empty().then_some(found)
    }

    /// What the engine would say; `None` for an error, which the engine knows how to tell.
    pub fn eval(&self, scope: &Value) -> Option<Value> {
        self.found(scope).map(Found::value)
    }

    fn found(&self, scope: &Value) -> Option<Found> {
        Some(Found::One(match self {
            Direct::Path(names) => follow(names, scope),
            Direct::Literal(value) => value.clone(),
            Direct::List(items) => {
                let items: Option<Vec<Value>> = items.iter().map(|item| item.eval(scope)).collect();
                return items.map(Found::List);
            }
            Direct::Filtered(inner, filter) => return filter.apply(inner.found(scope)?),
            Direct::Joined(left, right) => {
                let (left, right) = (left.eval(scope)?, right.eval(scope)?);
                Value::from(format!("{left}{right}"))
            }
            Direct::Or(first, second) => {
                let first = first.eval(scope)?;
                if first.is_true() { first } else { second.eval(scope)? }
            }
        }))
    }
}

/// A list that was made here is not wrapped between two filters.
enum Found {
    One(Value),
    List(Vec<Value>),
}

impl Found {
    fn value(self) -> Value {
        match self {
            Found::One(value) => value,
            Found::List(list) => Value::from(list),
        }
    }

    fn items(self) -> Option<Vec<Value>> {
        match self {
            Found::One(value) => filters::items(&value).ok(),
            Found::List(list) if list.len() > filters::LONGEST_LIST => None,
            Found::List(list) => Some(list),
        }
    }
}

/// What is not there is undefined, and so is everything below it.
fn follow(names: &[String], scope: &Value) -> Value {
    let below = |value: &Value, name: &String| value.get_attr(name).unwrap_or_default();
    let [first, rest @ ..] = names else {
        return Value::UNDEFINED;
    };
    rest.iter().fold(below(scope, first), |value, name| below(&value, name))
}

impl Filter {
    fn of(name: &str, mut arguments: Vec<String>) -> Option<Filter> {
        let second = if arguments.len() > 1 { arguments.pop() } else { None };
        let first = arguments.pop();
        // Neither too many nor too few.
        Some(match (name, first, second, arguments.is_empty()) {
            ("compact", None, None, true) => Filter::Compact,
            ("first", None, None, true) => Filter::First,
            ("flatten", None, None, true) => Filter::Flatten,
            ("join", glue, None, true) => Filter::Join(glue.unwrap_or_default()),
            ("label", None, None, true) => Filter::Label,
            ("replace", Some(from), Some(to), true) => Filter::Replace(from, to),
            ("split", Some(separator), None, true) => Filter::Split(separator),
            ("string", None, None, true) => Filter::String,
            ("trim", None, None, true) => Filter::Trim,
            _ => return None,
        })
    }

    fn apply(&self, to: Found) -> Option<Found> {
        Some(Found::One(match self {
            Filter::Compact => return Some(Found::List(filters::compact(to.items()?))),
            Filter::First => filters::first(to.items()?),
            Filter::Flatten => return filters::flatten(to.items()?).ok().map(Found::List),
            Filter::Join(glue) => Value::from(filters::join(&to.items()?, glue).ok()?),
            Filter::Label => filters::label(to.items()?),
            Filter::Replace(from, with) => Value::from(filters::replace(&to.value(), from, with).ok()?),
            Filter::Split(separator) => {
                let parts = filters::split(&to.value(), separator);
                return Some(Found::List(parts.into_iter().map(Value::from).collect()));
            }
            Filter::String => Value::from(filters::scalar(&to.value())),
            Filter::Trim => Value::from(filters::scalar(&to.value()).trim()),
        }))
    }
}

/// What the language takes for a value or an operator, not for a name.
const WORDS: [&str; 13] = [
    "true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else",
];

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// `a or b`, which binds weakest.
    fn either(&mut self) -> Option<Direct> {
        let mut found = self.joined()?;
        while self.word("or") {
            found = Direct::Or(Box::new(found), Box::new(self.joined()?));
        }
        Some(found)
    }

    fn joined(&mut self) -> Option<Direct> {
        let mut found = self.filtered()?;
        while self.mark('~') {
            found = Direct::Joined(Box::new(found), Box::new(self.filtered()?));
        }
        Some(found)
    }

    fn filtered(&mut self) -> Option<Direct> {
        let mut found = self.single()?;
        while self.mark('|') {
            let name = self.name()?;
            let mut arguments = Vec::new();
            if self.mark('(') {
                loop {
                    arguments.push(self.literal()?);
                    match (self.mark(','), self.mark(')')) {
                        (true, false) => {}
                        (false, true) => break,
                        _ => return None,
                    }
                }
            }
            found = Direct::Filtered(Box::new(found), Filter::of(name, arguments)?);
        }
        Some(found)
    }

    fn single(&mut self) -> Option<Direct> {
        if self.mark('[') {
            let mut items = Vec::new();
            loop {
                items.push(self.either()?);
                match (self.mark(','), self.mark(']')) {
                    (true, false) => {}
                    (false, true) => return Some(Direct::List(items)),
                    _ => return None,
                }
            }
        }
        if self.mark('(') {
            return self.either().filter(|_| self.mark(')'));
        }
        if let Some(text) = self.literal() {
            return Some(Direct::Literal(Value::from(text)));
        }
        let mut names = vec![self.name().filter(|name| !WORDS.contains(name))?.to_owned()];
        while self.mark('.') {
            names.push(self.name()?.to_owned());
        }
        Some(Direct::Path(names))
    }

    /// A text between quotes, without escapes in it.
    fn literal(&mut self) -> Option<String> {
        let rest = self.rest.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
        let (text, after) = rest[1..].split_once(quote)?;
        if text.contains('\\') {
            return None;
        }
        self.rest = after;
        Some(text.to_owned())
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            .then(|| {
                self.rest = after;
                name
            })
    }

    fn word(&mut self, word: &str) -> bool {
        let before = self.rest;
        let found = self.name() == Some(word);
        if !found {
            self.rest = before;
        }
        found
    }

    fn mark(&mut self, mark: char) -> bool {
        match self.rest.trim_start().strip_prefix(mark) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::super::{Attributes, Expr, ExprError, Names, scope, to_json, value_of};
    use super::*;

    fn compiled(text: &str) -> Expr {
        let names = Names::default()
            .with("item", Attributes::Any)
            .with("conn", Attributes::Any);
        Expr::compile(text, 0, &names).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// What comes of it here and in the engine: kind and content.
    fn both(expr: &Expr, names: &Value) -> [Result<(u8, Json), ExprError>; 2] {
        [expr.eval(names), expr.eval_by_engine(names)]
            .map(|found| found.map(|value| (value.kind() as u8, to_json(&value))))
    }

    #[test]
    fn what_mappings_mostly_say_is_direct_and_the_rest_is_the_engines() {
        for text in [
            "item.name",
            " item . a . b ",
            "[item.a, [item.b|trim, 'x']|compact|join(' ')] | flatten",
            "conn.base_url ~ '/web#id=' ~ item.id ~ \"&x\"",
            "item.parent|label or item.company or ''",
            "item.email|replace(';', ',')|split(',')",
            "item.or.not",
            "(conn.a or 'x') ~ (item.b)|trim",
        ] {
            assert!(compiled(text).direct.is_some(), "{text}");
        }
        for text in [
            "item['a']",
            "item.a[0]",
            "not item.a",
            "item.a == 'x'",
            "item.a and item.b",
            "'x' if item.a else 'y'",
            "item.a|map(attribute='b')",
            "item.a|lower",
            "'\\n' ~ item.a",
            "item.a|split",
            "true",
            "1",
            "[]",
            "-1",
        ] {
            assert!(Direct::of(text).is_none(), "{text}");
        }
    }

    fn data() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i32>().prop_map(Json::from),
            any::<f32>().prop_map(Json::from),
            "[ a-c,;é\u{0}]{0,6}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::btree_map("[abc]", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    fn expressions() -> impl Strategy<Value = String> {
        let path = prop::collection::vec("[abc]", 0..4).prop_map(|names| {
            let names = names.iter().map(|name| format!(".{name}"));
            format!("item{}", names.collect::<String>())
        });
        let leaf = prop_oneof![4 => path, 1 => "'[ a,;]{0,3}'", 1 => "\"[ a'~|]{0,3}\""];
        let filter = prop::sample::select(vec![
            "compact",
            "first",
            "flatten",
            "join",
            "join(' ')",
            "label",
            "replace('a', 'bb')",
            "replace('', 'b')",
            "split(',')",
            "split('')",
            "string",
            "trim",
        ]);
        leaf.prop_recursive(4, 16, 3, move |inner| {
            let list = prop::collection::vec(inner.clone(), 1..4).prop_map(|items| format!("[{}]", items.join(", ")));
            // Whatever is put together, it is read the way the engine reads it.
            prop_oneof![
                list.clone(),
                (prop_oneof![list, inner.clone()], filter.clone())
                    .prop_map(|(inner, filter)| format!("{inner}|{filter}")),
                (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} ~ {right}")),
                (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} or {right}")),
                inner.prop_map(|inner| format!("({inner})")),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_the_engine_says(text in expressions(), item in data()) {
            let expr = compiled(&text);
            prop_assert!(expr.direct.is_some());
            let [direct, engine] = both(&expr, &scope([("item", value_of(&item))]));
            prop_assert_eq!(direct, engine);
        }

        #[test]
        fn any_text_is_survived(text in "[a-c.|~\\[\\],()'\" or\\\\é]{0,30}") {
            let _ = Direct::of(&text);
        }
    }
}
