// The filter box: MLflow's grammar with completion, and the server's error at the place it is about.
import { useEffect, useRef, useState } from '../../vendor/preact.js';
import { html } from '../ui.js';
import { complete, place } from './filter.js';

/** @typedef {import('./types.js').Keys} Keys */
/** @typedef {import('./types.js').Column} Column */

/** The filter with the part marked that the server does not understand. @param {{filter: string, message: string}} props */
function Wrong({ filter, message }) {
  const at = place(filter, message);
  return html`<div class="filter-error" id="filter-error" role="alert">
    ${at && html`<code>${filter.slice(0, at[0])}<mark>${filter.slice(...at)}</mark>${filter.slice(at[1])}</code>`}<span>${message}</span></div>`;
}

/** @param {{filter: string, keys: Keys, valuesOf: (column: Column) => string[], error: string | null, apply: (filter: string) => void}} props */
export function FilterBox({ filter, keys, valuesOf, error, apply }) {
  const [text, setText] = useState(filter);
  const [caret, setCaret] = useState(0);
  const [open, setOpen] = useState(false);
  const [active, setActive] = useState(-1);
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => setText(filter), [filter]);
  const { from, to, offers } = open ? complete(text, caret, keys, valuesOf) : { from: 0, to: 0, offers: [] };
  const shown = open && offers.length > 0;

  const look = () => {
    setCaret(input.current?.selectionStart ?? 0);
    setActive(-1);
    setOpen(true);
  };
  /** @param {number} i */
  const accept = (i) => {
    const offer = offers[i];
    if (!offer || !input.current) return;
    const rest = text.slice(to).replace(/^\s+/, '');
    const begun = `${text.slice(0, from)}${offer.text} `;
    input.current.value = begun + rest;
    input.current.setSelectionRange(begun.length, begun.length);
    setText(begun + rest);
    setCaret(begun.length);
    setActive(-1);
  };
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      if (!shown) look();
      else setActive((active + (event.key === 'ArrowDown' ? 1 : active < 0 ? 0 : -1) + offers.length) % offers.length);
    } else if (event.key === 'Enter') {
      event.preventDefault();
      if (shown && active >= 0) accept(active);
      else {
        setOpen(false);
        apply(text.trim());
      }
    } else if (event.key === 'Tab' && shown && active >= 0) {
      event.preventDefault();
      accept(active);
    } else if (event.key === 'Escape' && shown) {
      event.preventDefault();
      setOpen(false);
    } else if (event.key === ' ' && event.ctrlKey) {
      event.preventDefault();
      look();
    }
  };
  useEffect(() => {
    document.getElementById(`offer-${active}`)?.scrollIntoView({ block: 'nearest' });
  }, [active]);

  return html`<form class="filter" role="search" onSubmit=${(/** @type {Event} */ e) => e.preventDefault()}>
    <label class="hidden" for="filter">Filter runs, in MLflow's grammar</label>
    <input id="filter" class="input" ref=${input} type="text" role="combobox" aria-expanded=${shown} aria-controls="filter-offers" aria-autocomplete="list" aria-activedescendant=${shown && active >= 0 ? `offer-${active}` : undefined}
      aria-invalid=${error ? 'true' : undefined} aria-describedby=${error ? 'filter-error' : undefined} autocomplete="off" spellcheck=${false} placeholder="metrics.auc > 0.7 AND params.boosting = 'gbdt'" value=${text}
      onInput=${(/** @type {any} */ e) => { setText(e.currentTarget.value); look(); }} onFocus=${look} onClick=${look} onBlur=${() => setOpen(false)} onKeyDown=${onKeyDown} />
    ${text !== filter && html`<button type="button" class="button primary" onMouseDown=${(/** @type {Event} */ e) => e.preventDefault()} onClick=${() => apply(text.trim())}>Filter</button>`}
    ${filter !== '' && text === filter && html`<button type="button" class="button" onClick=${() => apply('')}>Clear</button>`}
    <ul id="filter-offers" class="offers" role="listbox" aria-label="What may stand here" hidden=${!shown}>${shown && offers.map((offer, i) => html`<li key=${offer.text} id=${`offer-${i}`} role="option" aria-selected=${i === active} onMouseDown=${(/** @type {Event} */ e) => { e.preventDefault(); accept(i); }}>
      <code>${offer.text}</code> <span class="dim">${offer.hint}</span></li>`)}</ul>
    ${error && html`<${Wrong} filter=${filter} message=${error} />`}</form>`;
}
