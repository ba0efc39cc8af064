// MLflow's filter grammar, as far as the filter box has to know it: tokens, what may come next, where an error is.

/** @typedef {import('./types.js').Keys} Keys */
/** @typedef {import('./types.js').Column} Column */
/** @typedef {{kind: 'word' | 'string' | 'number' | 'op' | 'list' | 'bad', text: string, from: number, to: number}} Token */
/** @typedef {{text: string, hint: string}} Offer */
/** What may stand at the caret: offers replace the text between `from` and `to`. @typedef {{from: number, to: number, offers: Offer[]}} Completion */

export const ATTRIBUTES = ['run_id', 'run_name', 'status', 'user_id', 'start_time', 'end_time', 'artifact_uri'];
const NUMERIC = ['start_time', 'end_time', 'created'];
const STATES = ['RUNNING', 'FINISHED', 'FAILED', 'SCHEDULED', 'KILLED'];
const COMPARE = ['=', '!=', '>', '>=', '<', '<='];
const MATCH = ['=', '!=', 'LIKE', 'ILIKE'];

// A key may hold . / - : and a quoted part: metrics.`val loss`, tags."mlflow.user".
const PATTERN = /\s+|(?<list>\([^)]*\)?)|(?<op>!=|>=|<=|=|>|<)|(?<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))|(?<word>\w+\.(?:`[^`]*`?|"[^"]*"?)|[^\s=<>!'"`(),]+|`[^`]*`?)|(?<string>'[^']*'?|"[^"]*"?)|(?<bad>.)/gsu;

/** @param {string} text @returns {Token[]} */
export function tokens(text) {
  /** @type {Token[]} */
  const found = [];
  for (const match of text.matchAll(PATTERN)) {
    const kind = /** @type {Token['kind'] | undefined} */ (Object.entries(match.groups ?? {}).find(([, value]) => value !== undefined)?.[0]);
    if (kind) found.push({ kind, text: match[0], from: match.index, to: match.index + match[0].length });
  }
  return found;
}

/** A text as the grammar wants it. @param {string} value */
export const quoted = (value) => (value.includes("'") ? `"${value.replaceAll('"', '')}"` : `'${value}'`);

/** A key as the grammar wants it. @param {string} key */
const keyed = (key) => (/^[A-Za-z_][\w./-]*$/.test(key) ? key : key.includes('`') ? `"${key}"` : `\`${key}\``);

const ENTITY = { a: 'attributes', m: 'metrics', p: 'params', t: 'tags' };

/** How filter and order name a column. @param {Column} column */
export const identifier = ({ kind, key }) => `${ENTITY[kind]}.${keyed(key)}`;

/** What an identifier is about. @param {string} word @returns {{entity: 'm' | 'p' | 't' | 'd' | 'a', key: string}} */
function parsed(word) {
  const [, entity = '', rest = word] = /^(\w+)\.(.*)$/s.exec(word) ?? [];
  const kind = /^metrics?$/i.test(entity) ? 'm' : /^(params?|parameters?)$/i.test(entity) ? 'p' : /^tags?$/i.test(entity) ? 't' : /^datasets?$/i.test(entity) ? 'd' : 'a';
  return { entity: kind, key: (kind === 'a' && !/^(attributes?|attr|run)$/i.test(entity) ? word : rest).replace(/^[`"]|[`"]$/g, '') };
}

/** The operators that an identifier takes. @param {string} word */
function operatorsOf(word) {
  const { entity, key } = parsed(word);
  if (entity === 'm' || (entity === 'a' && NUMERIC.includes(key))) return COMPARE;
  if (entity === 'd') return [...MATCH, 'IN', 'NOT IN'];
  if (entity === 'a') return key === 'run_id' ? [...MATCH, 'IN', 'NOT IN'] : MATCH;
  return [...MATCH, 'IS NULL', 'IS NOT NULL'];
}

/** @param {Keys} keys @returns {Offer[]} */
function identifiers(keys) {
  const of = (/** @type {Column['kind']} */ kind, /** @type {string[]} */ names, /** @type {string} */ hint) => names.map((key) => ({ text: identifier({ kind, key }), hint }));
  return [...of('m', keys.metrics, 'metric'), ...of('p', keys.params, 'parameter'), ...of('t', keys.tags, 'tag'), ...of('a', ATTRIBUTES, 'attribute'), ...['name', 'digest', 'context'].map((key) => ({ text: `datasets.${key}`, hint: 'dataset' }))];
}

/** Values worth offering. @param {string} word @param {(column: Column) => string[]} valuesOf */
function values(word, valuesOf) {
  const { entity, key } = parsed(word);
  if (entity === 'a' && key === 'status') return STATES;
  return entity === 'm' || entity === 'd' ? [] : valuesOf({ kind: entity, key });
}

/** The offers that fit what was typed, beginnings first. @param {Offer[]} offers @param {string} typed */
function fitting(offers, typed) {
  const sought = typed.toLowerCase();
  const rank = (/** @type {Offer} */ { text }) => (text.toLowerCase().startsWith(sought) ? 0 : text.toLowerCase().replace(/^\w+\./, '').startsWith(sought) ? 1 : text.toLowerCase().includes(sought) ? 2 : 3);
  return offers.map((offer, i) => ({ offer, i, rank: rank(offer) })).filter((o) => o.rank < 3 && o.offer.text !== typed).sort((a, b) => a.rank - b.rank || a.i - b.i).slice(0, 50).map((o) => o.offer);
}

/**
 * What may stand at the caret.
 * @param {string} text @param {number} caret @param {Keys} keys @param {(column: Column) => string[]} [valuesOf] @returns {Completion}
 */
export function complete(text, caret, keys, valuesOf = () => []) {
  const before = tokens(text.slice(0, caret));
  const last = before.at(-1);
  const touching = last && last.to === caret && last.kind !== 'op' ? before.pop() : undefined;
  const [from, typed] = touching ? [touching.from, touching.text] : [caret, ''];
  const clause = before.slice(before.findLastIndex((token) => token.kind === 'word' && /^and$/i.test(token.text)) + 1);
  const to = touching ? from + (tokens(text.slice(from))[0]?.text.length ?? typed.length) : caret;
  const [word, ...rest] = clause;
  const said = rest.map((token) => token.text.toUpperCase()).join(' ');
  /** @type {Offer[]} */
  let offers = [];
  if (!word) offers = identifiers(keys);
  else if (said === '') offers = operatorsOf(word.text).map((op) => ({ text: op, hint: 'operator' }));
  else if (said === 'IS') offers = ['NULL', 'NOT NULL'].map((op) => ({ text: op, hint: 'operator' }));
  else if (said === 'NOT') offers = [{ text: 'IN', hint: 'operator' }];
  else if (said === 'IS NOT') offers = [{ text: 'NULL', hint: 'operator' }];
  else if (rest.length === 1 && rest[0]?.kind === 'op') offers = values(word.text, valuesOf).map((value) => ({ text: quoted(value), hint: 'value' }));
  else if (!/LIKE$|^IN$|NOT IN$/.test(said)) offers = [{ text: 'AND', hint: 'and also' }];
  return { from, to, offers: fitting(offers, typed) };
}

/** Where a part stands in the filter as a whole word; -1 if it does not. @param {string} filter @param {string} sought */
function wholeWord(filter, sought) {
  const [text, part] = [filter.toLowerCase(), sought.toLowerCase()];
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + 1)) {
    if (!(/\w$/.test(text.slice(0, at)) && /^\w/.test(part)) && !(/^\w/.test(text.slice(at + part.length)) && /\w$/.test(part))) return at;
  }
  return -1;
}

/** Which part of the filter a message of the server is about; null where it does not say. @param {string} text @param {string} message @returns {[number, number] | null} */
export function place(text, message) {
  // What would be valid is named too: it comes after.
  const [about = ''] = message.split(/\b(?:valid (?:\w+ )*(?:are|is)|expected|must be|supported|allowed)\b/i);
  const named = [...about.matchAll(/'([^']+)'|"([^"]+)"|`([^`]+)`/g)].map((match) => (match[1] ?? match[2] ?? match[3] ?? '').trim());
  const found = /\b(?:found|got value) (.+?)\.?$/i.exec(message)?.[1]?.trim();
  if (found !== undefined) named.push(found, found.replace(/^'|'$/g, ''));
  // A clause that itself holds quotes is cut at the first: so all between the outermost quotes counts too.
  named.push(...[...about.matchAll(/['"`](.+)['"`]/g)].map((match) => (match[1] ?? '').trim()));
  const [best] = named.filter((part) => part !== '' && part.length < text.length && wholeWord(text, part) >= 0).sort((a, b) => b.length - a.length);
  if (best !== undefined) return [wholeWord(text, best), wholeWord(text, best) + best.length];
  const bad = tokens(text).find((token) => token.kind === 'bad' || (token.kind === 'string' && (token.text.length < 2 || !token.text.endsWith(token.text[0] ?? ''))));
  return bad ? [bad.from, bad.to] : null;
}
