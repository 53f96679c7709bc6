//! Reads questions about an atlas by their words: a grammar of its own, over the names in the fact table. It shares no
//! code with what writes the questions, and does not look at what is stored beside them.
//!
//! A text is read in every way that the grammar allows, so that a question with two meanings shows.

use std::collections::HashMap;

use serde_json::{Value, json};
use webdancer_synth::atlas::Atlas;

/// Ways to read the beginning of a text, each with what is left of it.
type Readings<'t> = Vec<(Value, &'t str)>;
/// What the slots of a pattern hold, with what is left of the text.
type Filled<'t> = Vec<(Vec<Value>, &'t str)>;
/// What letters stand for.
type Letters = HashMap<char, Value>;
/// Words with `{slots}`, and what they mean. A slot is a kind of entity, `place`, or `clauses`.
type Pattern = (&'static str, fn(&[Value]) -> Value);

const TERMS: &[Pattern] = &[
    ("the capital of {country}", |of| the("capital", &of[0])),
    ("the official language of {country}", |of| the("language", &of[0])),
    ("the currency of {country}", |of| the("currency", &of[0])),
    ("the region that {subregion} is a part of", |of| the("region", &of[0])),
    ("the region of the world that contains {country}", |of| the("region", &of[0])),
    ("the subregion that contains {country}", |of| the("subregion", &of[0])),
    ("the language that is official in both {country} and {country}", |of| shared("language", of)),
    ("the currency that is used in both {country} and {country}", |of| shared("currency", of)),
    ("the country {clauses}", |which| json!({ "only": which[0] })),
    ("the territory {clauses}", |which| json!({ "only": which[0] })),
    ("the country or territory {clauses}", |which| json!({ "only": which[0] })),
    ("the only country or territory {clauses}", |which| json!({ "only": which[0] })),
    ("the largest by area of the countries and territories {clauses}", |which| ranked("largest", 1, which)),
    ("the second-largest by area of the countries and territories {clauses}", |which| ranked("largest", 2, which)),
    ("the third-largest by area of the countries and territories {clauses}", |which| ranked("largest", 3, which)),
    ("the smallest by area of the countries and territories {clauses}", |which| ranked("smallest", 1, which)),
    ("the second-smallest by area of the countries and territories {clauses}", |which| ranked("smallest", 2, which)),
    ("the third-smallest by area of the countries and territories {clauses}", |which| ranked("smallest", 3, which)),
];

/// What follows "the country", each a list of conditions.
const CLAUSES: &[Pattern] = &[
    ("whose capital is {capital}", with),
    ("that has {capital} as one of its capitals", with),
    ("where {language} is an official language", with),
    ("whose official languages include {language}", with),
    ("that uses {currency}", with),
    ("that use {currency}", with),
    ("that borders {country}", with),
    ("that border {country}", with),
    ("that borders both {country} and {country}", with),
    ("that border both {country} and {country}", with),
    ("that lies in {place}", with),
    ("that lie in {place}", with),
    ("that has no coast", |_| json!([{ "landlocked": true }])),
    ("that have no coast", |_| json!([{ "landlocked": true }])),
    ("that has a coast", |_| json!([{ "landlocked": false }])),
    ("that have a coast", |_| json!([{ "landlocked": false }])),
    ("that is a member of the United Nations", |_| json!([{ "un_member": true }])),
    ("that are members of the United Nations", |_| json!([{ "un_member": true }])),
    ("that is not a member of the United Nations", |_| json!([{ "un_member": false }])),
    ("that are not members of the United Nations", |_| json!([{ "un_member": false }])),
];

const FORMS: &[Pattern] = &[
    ("What is {term}?", |of| json!({ "name": of[0] })),
    ("Which is {term}?", |of| json!({ "name": of[0] })),
    ("What is the name of {country}?", |of| json!({ "name": of[0] })),
    ("Which city is {capital}?", |of| json!({ "name": of[0] })),
    ("Which language is official in {country}?", |of| json!({ "name": the("language", &of[0]) })),
    ("Which currency is used in {country}?", |of| json!({ "name": the("currency", &of[0]) })),
    ("Which language is official in both {country} and {country}?", |of| json!({ "name": shared("language", of) })),
    ("Which currency is used in both {country} and {country}?", |of| json!({ "name": shared("currency", of) })),
    ("Which region is {subregion} a part of?", |of| json!({ "name": the("region", &of[0]) })),
    ("Which region of the world contains {country}?", |of| json!({ "name": the("region", &of[0]) })),
    ("Which subregion contains {country}?", |of| json!({ "name": the("subregion", &of[0]) })),
    ("What is the subregion of {country}?", |of| json!({ "name": the("subregion", &of[0]) })),
    ("What is the area of {country} in square kilometres?", |of| amount("area", of)),
    ("With how many countries and territories does {country} share a land border?", |of| amount("neighbours", of)),
    ("How many neighbours by land does {country} have?", |of| amount("neighbours", of)),
    ("How many official languages does {country} have?", |of| amount("languages", of)),
    ("How many countries and territories are there {clauses}?", |which| json!({ "count": which[0] })),
    ("What is the number of countries and territories {clauses}?", |which| json!({ "count": which[0] })),
    ("Which has the larger area: {country} or {country}?", |of| compare("area", "largest", of)),
    ("Which has the smaller area: {country} or {country}?", |of| compare("area", "smallest", of)),
    ("Which shares land borders with more countries and territories: {country} or {country}?", |of| {
        compare("neighbours", "largest", of)
    }),
    ("Which shares land borders with fewer countries and territories: {country} or {country}?", |of| {
        compare("neighbours", "smallest", of)
    }),
    ("Which has more official languages: {country} or {country}?", |of| compare("languages", "largest", of)),
    ("Which has fewer official languages: {country} or {country}?", |of| compare("languages", "smallest", of)),
    ("What is the difference in area, in square kilometres, between {country} and {country}?", |of| {
        difference("area", of)
    }),
    ("How large is the difference in area, in square kilometres, between {country} and {country}?", |of| {
        difference("area", of)
    }),
    ("What is the difference in the number of neighbours by land between {country} and {country}?", |of| {
        difference("neighbours", of)
    }),
    ("How large is the difference in the number of neighbours by land between {country} and {country}?", |of| {
        difference("neighbours", of)
    }),
    ("What is the difference in the number of official languages between {country} and {country}?", |of| {
        difference("languages", of)
    }),
    ("How large is the difference in the number of official languages between {country} and {country}?", |of| {
        difference("languages", of)
    }),
    ("Is {country} landlocked?", |of| holds(&json!({ "landlocked": true }), &of[0])),
    ("Is {country} without a coast?", |of| holds(&json!({ "landlocked": true }), &of[0])),
    ("Is {country} a member of the United Nations?", |of| holds(&json!({ "un_member": true }), &of[0])),
    ("Does {country} share a land border with {country}?", |of| holds(&json!({ "with": of[1] }), &of[0])),
    ("Does {country} lie in {place}?", |of| holds(&json!({ "with": of[1] }), &of[0])),
    ("Is {language} an official language of {country}?", |of| holds(&json!({ "with": of[0] }), &of[1])),
    ("Is {currency} a currency of {country}?", |of| holds(&json!({ "with": of[0] }), &of[1])),
];

fn the(kind: &str, of: &Value) -> Value {
    json!({ "the": { "kind": kind, "of": of } })
}

fn shared(kind: &str, of: &[Value]) -> Value {
    json!({ "shared": { "kind": kind, "of": of } })
}

fn ranked(order: &str, rank: u64, which: &[Value]) -> Value {
    json!({ "ranked": { "order": order, "rank": rank, "among": which[0] } })
}

fn with(of: &[Value]) -> Value {
    of.iter().map(|term| json!({ "with": term })).collect()
}

fn amount(measure: &str, of: &[Value]) -> Value {
    json!({ "amount": { "measure": measure, "of": of[0] } })
}

fn compare(measure: &str, order: &str, of: &[Value]) -> Value {
    json!({ "compare": { "measure": measure, "order": order, "of": of } })
}

fn difference(measure: &str, of: &[Value]) -> Value {
    json!({ "difference": { "measure": measure, "of": of } })
}

fn holds(condition: &Value, of: &Value) -> Value {
    json!({ "holds": { "condition": condition, "of": of } })
}

/// What kind of entity a term means.
fn kind(term: &Value) -> &str {
    let (what, body) = term.as_object().unwrap().iter().next().unwrap();
    match what.as_str() {
        "only" | "ranked" => "country",
        _ => body["kind"].as_str().unwrap(),
    }
}

/// Knows the names of an atlas.
pub(crate) struct Reader {
    /// The entities of each name, as terms.
    names: HashMap<String, Vec<Value>>,
}

impl Reader {
    pub(crate) fn new(atlas: &Atlas) -> Reader {
        let mut names: HashMap<String, Vec<Value>> = HashMap::new();
        for entity in atlas.entities() {
            let term = json!({ "named": { "kind": entity.kind.segment(), "key": entity.key } });
            names.entry(entity.title.clone()).or_default().push(term);
        }
        Reader { names }
    }

    /// What a question asks, in every way that it can be read.
    pub(crate) fn read(&self, question: &str) -> Vec<Value> {
        self.sentences(question, &Letters::new())
    }

    fn sentences(&self, text: &str, letters: &Letters) -> Vec<Value> {
        let Some((letter, told)) = text.strip_prefix("Let ").and_then(|rest| rest.split_once(" be ")) else {
            let whole = |(form, rest): (Value, &str)| rest.is_empty().then_some(form);
            return FORMS.iter().flat_map(|form| self.read_as(form, text, letters)).filter_map(whole).collect();
        };
        let letter = letter.parse().unwrap();
        let terms = self.term(told, letters).into_iter();
        let terms = terms.filter_map(|(term, rest)| Some((term, rest.strip_prefix(". ")?)));
        terms
            .flat_map(|(term, rest)| {
                let mut letters = letters.clone();
                letters.insert(letter, term);
                self.sentences(rest, &letters)
            })
            .collect()
    }

    fn read_as<'t>(&self, (words, means): &Pattern, text: &'t str, letters: &Letters) -> Readings<'t> {
        self.fill(words, text, letters).into_iter().map(|(slots, rest)| (means(&slots), rest)).collect()
    }

    fn fill<'t>(&self, words: &str, text: &'t str, letters: &Letters) -> Filled<'t> {
        let (before, slot) =
            words.split_once('{').map_or((words, None), |(before, rest)| (before, rest.split_once('}')));
        let Some(rest) = text.strip_prefix(before) else { return Vec::new() };
        let Some((slot, after)) = slot else { return vec![(Vec::new(), rest)] };
        let found = if slot == "clauses" { self.clauses(rest, letters) } else { self.term_of(slot, rest, letters) };
        let mut filled = Vec::new();
        for (value, rest) in found {
            for (others, rest) in self.fill(after, rest, letters) {
                filled.push(([vec![value.clone()], others].concat(), rest));
            }
        }
        filled
    }

    fn term_of<'t>(&self, slot: &str, text: &'t str, letters: &Letters) -> Readings<'t> {
        let fits = |term: &Value| match slot {
            "term" => true,
            "place" => ["region", "subregion"].contains(&kind(term)),
            slot => kind(term) == slot,
        };
        self.term(text, letters).into_iter().filter(|(term, _)| fits(term)).collect()
    }

    fn term<'t>(&self, text: &'t str, letters: &Letters) -> Readings<'t> {
        let named = [text, text.strip_prefix("the ").unwrap_or_default()].into_iter().flat_map(|text| self.named(text));
        let described = TERMS.iter().flat_map(|term| self.read_as(term, text, letters));
        let mut found: Readings<'t> = named.chain(described).collect();
        if let Some((letter, rest)) = text.chars().next().zip(text.get(1..))
            && !rest.starts_with(char::is_alphanumeric)
        {
            found.extend(letters.get(&letter).map(|term| (term.clone(), rest)));
        }
        found
    }

    /// Names that the text begins with.
    fn named<'t>(&self, text: &'t str) -> Readings<'t> {
        let ends = text.char_indices().filter(|(_, c)| !c.is_alphanumeric()).map(|(at, _)| at).chain([text.len()]);
        let found = ends.filter_map(|end| Some((self.names.get(&text[..end])?, &text[end..])));
        found.flat_map(|(terms, rest)| terms.iter().map(move |term| (term.clone(), rest))).collect()
    }

    /// Conditions: places first, then clauses with "and" between them.
    fn clauses<'t>(&self, text: &'t str, letters: &Letters) -> Readings<'t> {
        let mut found = Vec::new();
        let clause = |text| CLAUSES.iter().flat_map(move |clause| self.read_as(clause, text, letters));
        for (place, rest) in self.read_as(&("in {place}", with), text, letters) {
            let more = rest.strip_prefix(' ').map(|rest| self.clauses(rest, letters)).unwrap_or_default();
            found.extend(more.into_iter().map(|(others, rest)| (both(&place, &others), rest)));
            found.push((place, rest));
        }
        for (one, rest) in clause(text) {
            // Behind a clause there is no place.
            let more = rest.strip_prefix(" and ").filter(|rest| !rest.starts_with("in "));
            let more = more.map(|rest| self.clauses(rest, letters)).unwrap_or_default();
            found.extend(more.into_iter().map(|(others, rest)| (both(&one, &others), rest)));
            found.push((one, rest));
        }
        found
    }
}

fn both(some: &Value, others: &Value) -> Value {
    some.as_array().unwrap().iter().chain(others.as_array().unwrap()).cloned().collect()
}
