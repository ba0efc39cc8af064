// The runs table: only the rows that are seen are in the document, however many there are.
import { useEffect, useLayoutEffect, useRef, useState } from '../../vendor/preact.js';
import { count, go } from '../client.js';
import { Badge, html } from '../ui.js';
import { curveColour, runLink, TONES } from './api.js';
import { cell, idOf, isNumeric, isSortable, labelOf, NAME, widthOf } from './columns.js';

/** @typedef {import('./types.js').Row} Row */
/** @typedef {import('./types.js').Column} Column */
/** @typedef {import('./types.js').Order} Order */

/** Height of a row, as the style sheet has it. */
const ROW = 33;
/** Rows above and below the seen ones. */
const SPARE = 12;
/** More runs are asked for when fewer than this are below the seen ones. */
const AHEAD = 300;

/** @param {{column: Column, order: Order | null, sort: (order: Order) => void}} props */
function Head({ column, order, sort }) {
  const here = order && idOf(order.column) === idOf(column);
  const label = labelOf(column);
  return html`<th scope="col" class=${isNumeric(column) ? 'num' : ''} title=${label} aria-sort=${here ? (order.descending ? 'descending' : 'ascending') : isSortable(column) ? 'none' : undefined}>
    ${isSortable(column) ? html`<button type="button" class="sort" onClick=${() => sort({ column, descending: here ? !order.descending : column.kind === 'm' || column.key === 'start_time' })}><span>${label}</span><span aria-hidden="true">${here ? (order.descending ? ' ↓' : ' ↑') : ''}</span></button>` : html`<span>${label}</span>`}</th>`;
}

/** @param {{row: Row, i: number, columns: Column[], chosen: boolean, tabbable: boolean, pick: (i: number, range: boolean) => void}} props */
function Line({ row, i, columns, chosen, tabbable, pick }) {
  return html`<tr aria-rowindex=${i + 2} class=${chosen ? 'chosen' : ''} data-row=${i}>
    <td class="pick"><input type="checkbox" checked=${chosen} tabindex="-1" aria-label=${`Select ${row.name}`} onClick=${(/** @type {MouseEvent} */ e) => pick(i, e.shiftKey)} /></td>
    <th scope="row"><a href=${runLink(row.info.experiment_id, row.id)} tabindex=${tabbable ? 0 : -1} title=${row.name}>${row.name}</a></th>
    ${columns.map((column) => {
      const text = cell(row, column);
      return html`<td key=${idOf(column)} class=${isNumeric(column) ? 'num' : ''} title=${text}>${column.kind === 'a' && column.key === 'status' ? html`<${Badge} value=${text.toLowerCase()} tone=${TONES[text]} />` : text}</td>`;
    })}</tr>`;
}

/**
 * @param {{rows: Row[], columns: Column[], order: Order | null, sort: (order: Order) => void, chosen: Set<string>, choose: (chosen: Set<string>) => void, hasMore: boolean, waiting: boolean, more: () => unknown}} props
 */
export function RunsTable({ rows, columns, order, sort, chosen, choose, hasMore, waiting, more }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [seen, setSeen] = useState({ from: 0, until: 40 });
  const [active, setActive] = useState(0);
  const picked = useRef(0);
  const focus = useRef(false);
  const at = Math.min(active, Math.max(0, rows.length - 1));

  const look = () => {
    const element = box.current;
    if (!element) return;
    const from = Math.max(0, Math.floor(element.scrollTop / ROW) - SPARE);
    const until = Math.ceil((element.scrollTop + element.clientHeight) / ROW) + SPARE;
    setSeen((before) => (before.from === from && before.until === until ? before : { from, until }));
  };
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(look);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (hasMore && !waiting && seen.until + AHEAD > rows.length) more();
  }, [hasMore, waiting, seen.until, rows.length]);

  /** Selects a row, or all from the last selected one to it. @param {number} i @param {boolean} range */
  const pick = (i, range) => {
    const next = new Set(chosen);
    const on = !chosen.has(rows[i]?.id ?? '');
    for (let j = range ? Math.min(picked.current, i) : i; j <= (range ? Math.max(picked.current, i) : i); j += 1) {
      const id = rows[j]?.id;
      if (id !== undefined) (on ? next.add(id) : next.delete(id));
    }
    picked.current = i;
    setActive(i);
    choose(next);
  };

  /** @param {number} to */
  const goTo = (to) => {
    const element = box.current;
    if (!element || rows.length === 0) return;
    const target = Math.max(0, Math.min(rows.length - 1, to));
    const room = element.clientHeight - ROW * 2;
    if (target * ROW < element.scrollTop) element.scrollTop = target * ROW;
    else if (target * ROW > element.scrollTop + room - ROW) element.scrollTop = target * ROW - room + ROW;
    setActive(target);
    focus.current = true;
    look();
  };
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    if (event.target instanceof HTMLButtonElement) return;
    const page = Math.max(1, Math.floor((box.current?.clientHeight ?? 400) / ROW) - 3);
    const to = /** @type {Record<string, number>} */ ({ ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 })[event.key];
    if (to !== undefined) goTo(to);
    else if (event.key === ' ') pick(at, event.shiftKey);
    else if (event.key === 'Enter' && event.target === box.current && rows[at]) go(runLink(rows[at].info.experiment_id, rows[at].id));
    else return;
    event.preventDefault();
  };

  // New runs come in above: what is looked at stays where it is.
  const top = useRef(rows[0]?.id);
  useLayoutEffect(() => {
    const added = top.current === rows[0]?.id ? 0 : rows.findIndex((row) => row.id === top.current);
    top.current = rows[0]?.id;
    if (added <= 0) return;
    picked.current += added;
    setActive((i) => i + added);
    if (box.current && box.current.scrollTop > 0) box.current.scrollTop += added * ROW;
  }, [rows]);

  // The focus stays with its row; when that leaves the document it goes to the table, and comes back by an arrow key.
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const line = element.querySelector(`tr[data-row="${at}"] a`);
    if (focus.current && line instanceof HTMLElement) {
      line.focus({ preventScroll: true });
      focus.current = false;
    }
  }, [at, seen, rows.length]);
  const onScroll = () => {
    const held = document.activeElement;
    const line = held instanceof HTMLElement && box.current?.contains(held) ? held.closest('tr[data-row]') : null;
    if (line && box.current) {
      const i = Number(line.getAttribute('data-row'));
      const first = Math.floor(box.current.scrollTop / ROW);
      if (i < first - SPARE + 1 || i > first + box.current.clientHeight / ROW + SPARE - 1) box.current.focus({ preventScroll: true });
    }
    look();
  };

  const { from, until } = { from: Math.min(seen.from, Math.max(0, rows.length - 1)), until: Math.min(seen.until, rows.length) };
  const widths = [38, innerWidth < 760 ? 150 : 232, ...columns.map(widthOf)];
  const all = rows.length > 0 && rows.every((row) => chosen.has(row.id));
  return html`<div class="runs-table" ref=${box} role="region" tabindex="0" onScroll=${onScroll} onKeyDown=${onKeyDown} style=${{ height: `${(rows.length + 1) * ROW + 20}px` }}
      aria-label="Runs: arrow keys move, space selects, enter opens">
    <table aria-rowcount=${hasMore ? -1 : rows.length + 1} style=${{ width: `${widths.reduce((sum, width) => sum + width, 0)}px` }}>
      <colgroup>${widths.map((width, i) => html`<col key=${i} style=${{ width: `${width}px` }} />`)}</colgroup>
      <thead><tr aria-rowindex="1"><td class="pick"><input type="checkbox" checked=${all} aria-label=${`Select all ${count(rows.length)} loaded runs`} onClick=${() => choose(all ? new Set() : new Set(rows.map((row) => row.id)))} /></td>
        <${Head} column=${NAME} order=${order} sort=${sort} />${columns.map((column) => html`<${Head} key=${idOf(column)} column=${column} order=${order} sort=${sort} />`)}</tr></thead>
      <tbody>
        ${from > 0 && html`<tr key="above" class="space" aria-hidden="true"><td colspan=${widths.length} style=${{ height: `${from * ROW}px` }}></td></tr>`}
        ${rows.slice(from, until).map((row, j) => html`<${Line} key=${row.id} row=${row} i=${from + j} columns=${columns} chosen=${chosen.has(row.id)} tabbable=${from + j === at} pick=${pick} />`)}
        ${until < rows.length && html`<tr key="below" class="space" aria-hidden="true"><td colspan=${widths.length} style=${{ height: `${(rows.length - until) * ROW}px` }}></td></tr>`}
      </tbody></table></div>`;
}

/** The colour of the `i`th curve as a small square. @param {{i: number}} props */
export const Swatch = ({ i }) => html`<i class="swatch" style=${{ background: `var(${curveColour(i)})` }} aria-hidden="true"></i>`;
