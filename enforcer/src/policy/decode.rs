//! Tree → draft structs, through serde, reporting every fault with its place instead of only the first.

use super::{
    problem::{Position, Problem},
    yaml::{Key, Node, Value},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use std::{borrow::Cow, cell::RefCell, fmt, marker::PhantomData};

/// Keys that belong to the language and that this version cannot enforce.
/// Decodes `node`, appending every fault to `problems`.
pub(super) fn decode<T: DeserializeOwned>(node: &Node, problems: &mut Vec<Problem>) -> Option<T> {
    let sink = RefCell::new(std::mem::take(problems));
    let value = T::deserialize(Decoder { node, sink: &sink }).ok();
    *problems = sink.into_inner();
    value
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) at: Position,
    pub(super) value: T,
}

/// A value, or nothing where it could not be decoded: the fault has been reported.
#[derive(Clone, Debug)]
pub(super) struct Tolerant<T>(pub(super) Option<T>);

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub(super) struct OneOrMany<T>(pub(super) Vec<T>);

const AT: &str = "enforcer::At";
const TOLERANT: &str = "enforcer::Tolerant";

#[derive(Clone, Copy)]
struct Decoder<'a> {
    node: &'a Node,
    sink: &'a RefCell<Vec<Problem>>,
}

/// A fault on its way to the node that it belongs to.
#[derive(Debug)]
enum Fault {
    New { message: String, remedy: String },
    Reported,
}

impl Decoder<'_> {
    fn report(&self, fault: Fault) -> Fault {
        if let Fault::New { message, remedy } = fault {
            self.sink.borrow_mut().push(Problem::new(self.node.at, message, remedy));
        }
        Fault::Reported
    }

    fn wrong(&self, expected: &dyn de::Expected) -> Fault {
        self.report(de::Error::invalid_type(self.node.value.unexpected(), expected))
    }
}

impl Value {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Integer(value) => Unexpected::Signed(*value),
            Self::Natural(value) => Unexpected::Unsigned(*value),
            Self::Float(value) => Unexpected::Float(*value),
            Self::Text(value) => Unexpected::Str(value),
            Self::List(_) => Unexpected::Seq,
            Self::Map(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Natural(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(nodes) => visitor.visit_seq(List { nodes: nodes.iter(), sink: self.sink }),
            Value::Map(entries) => {
                visitor.visit_map(Entries { entries: entries.iter(), value: None, sink: self.sink })
            }
        }
        .map_err(|fault| self.report(fault))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        // An optional key that is written has a value.
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match name {
            AT => visitor.visit_seq(Place { decoder: self, step: 0 }),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.wrong(&KeysExpected(fields)));
        };
        let unknown: Vec<&Key> =
            entries.iter().map(|(key, _)| key).filter(|key| !fields.contains(&key.name.as_str())).collect();
        for key in &unknown {
            let (message, remedy) = unknown_key(&key.name, fields);
            self.sink.borrow_mut().push(Problem::new(key.at, message, remedy));
        }
        let known: Vec<(Key, Node)>;
        let entries = if unknown.is_empty() {
            entries
        } else {
            known = entries.iter().filter(|(key, _)| fields.contains(&key.name.as_str())).cloned().collect();
            &known
        };
        visitor
            .visit_map(Entries { entries: entries.iter(), value: None, sink: self.sink })
            .map_err(|fault| self.report(fault))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => {
                visitor.visit_enum(text.as_str().into_deserializer()).map_err(|fault| self.report(fault))
            }
            _ => Err(self.wrong(&"a word")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// What to say of a key that is not in `fields`.
fn unknown_key(key: &str, fields: &[&str]) -> (String, String) {
    let near = fields.iter().map(|field| (distance(key, field), field)).min();
    let remedy = match near {
        Some((distance, field)) if distance <= 2 && distance < field.len() => {
            format!("did you mean `{field}`?")
        }
        _ => format!("the keys here are {}", list(fields)),
    };
    (format!("unknown key `{key}`"), remedy)
}

/// Words as `a`, `b` and `c`.
pub(super) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => quoted.concat(),
    }
}

/// Insertions, deletions and substitutions between two words.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate().take(64) {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

struct KeysExpected(&'static [&'static str]);

impl de::Expected for KeysExpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a mapping with {}", list(self.0))
    }
}

struct List<'a> {
    nodes: std::slice::Iter<'a, Node>,
    sink: &'a RefCell<Vec<Problem>>,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        seed.deserialize(Decoder { node, sink: self.sink }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.nodes.len())
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<&'a Node>,
    sink: &'a RefCell<Vec<Problem>>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(key.name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.value.take() {
            Some(node) => seed.deserialize(Decoder { node, sink: self.sink }),
            None => Err(de::Error::custom("a value was read before its key")),
        }
    }
}

/// Line, column, offset, value.
struct Place<'a> {
    decoder: Decoder<'a>,
    step: u8,
}

impl<'de> SeqAccess<'de> for Place<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Position { line, column, offset } = self.decoder.node.at;
        self.step += 1;
        match self.step {
            1 => seed.deserialize(line.into_deserializer()).map(Some),
            2 => seed.deserialize(column.into_deserializer()).map(Some),
            3 => seed.deserialize(offset.into_deserializer()).map(Some),
            4 => seed.deserialize(self.decoder).map(Some),
            _ => Ok(None),
        }
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New { message, remedy: _ } => f.write_str(message),
            Self::Reported => f.write_str("reported before"),
        }
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::New { message: message.to_string(), remedy: String::new() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let remedy = match found {
            Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => {
                "put text that looks like a number or a truth value in quotes".to_owned()
            }
            Unexpected::Unit => "give the key a value, or remove it".to_owned(),
            _ => String::new(),
        };
        let found = match found {
            Unexpected::Str(text) => format!("the text \"{text}\""),
            Unexpected::Unit => "nothing".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a mapping".to_owned(),
            Unexpected::Other(what) => what.to_owned(),
            other => other.to_string(),
        };
        // Serde's words for what YAML calls otherwise.
        let expected = match expected.to_string() {
            word if word == "a sequence" => "a list".to_owned(),
            word if word == "a string" => "text".to_owned(),
            word if word == "u64" || word == "u32" => "a whole number".to_owned(),
            word => word,
        };
        Self::New { message: format!("expected {expected}, found {found}"), remedy }
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        let near = expected.iter().map(|word| (distance(found, word), word)).min();
        let remedy = match near {
            Some((1..=2, word)) if expected.len() > 1 => format!("did you mean `{word}`?"),
            _ => format!("write {}", list(expected).replace(" and ", " or ")),
        };
        Self::New { message: format!("`{found}` is not known here"), remedy }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::New { message: format!("the key `{field}` is missing"), remedy: format!("add `{field}`") }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlaceVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for PlaceVisitor<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut place: A) -> Result<At<T>, A::Error> {
                let missing = || de::Error::custom("a value without a place");
                let line = place.next_element()?.ok_or_else(missing)?;
                let column = place.next_element()?.ok_or_else(missing)?;
                let offset = place.next_element()?.ok_or_else(missing)?;
                let value = place.next_element()?.ok_or_else(missing)?;
                Ok(At { at: Position { line, column, offset }, value })
            }
        }
        deserializer.deserialize_newtype_struct(AT, PlaceVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tolerant<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TolerantVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for TolerantVisitor<T> {
            type Value = Tolerant<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Tolerant<T>, D::Error> {
                Ok(Tolerant(T::deserialize(inner).ok()))
            }
        }
        deserializer.deserialize_newtype_struct(TOLERANT, TolerantVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<At<T>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Many<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Many<T> {
            type Value = Vec<At<T>>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of texts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let value = T::deserialize(text.into_deserializer())?;
                // The place is filled in below.
                Ok(vec![At { at: Position::default(), value }])
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = list.next_element()? {
                    all.push(item);
                }
                Ok(all)
            }
        }
        struct Any<T>(Vec<At<T>>);
        impl<'de, T: Deserialize<'de>> Deserialize<'de> for Any<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Many(PhantomData)).map(Any)
            }
        }
        let At { at, value: Any(mut all) } = At::<Any<T>>::deserialize(deserializer)?;
        for one in all.iter_mut().filter(|one| one.at == Position::default()) {
            one.at = at;
        }
        Ok(Self(all))
    }
}

macro_rules! transparent_schema {
    ($($wrapper:ident),*) => {$(
        impl<T: JsonSchema> JsonSchema for $wrapper<T> {
            fn inline_schema() -> bool {
                T::inline_schema()
            }
            fn schema_name() -> Cow<'static, str> {
                T::schema_name()
            }
            fn schema_id() -> Cow<'static, str> {
                T::schema_id()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                T::json_schema(generator)
            }
        }
    )*};
}
transparent_schema!(At, Tolerant);

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}
