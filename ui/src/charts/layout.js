// What the charts of a page share: one time axis, so that they read as one picture.
import { useEffect, useState } from '../../vendor/hooks.js';

/** Room on the right of every plot, pixels. */
export const RIGHT = 18;

/** Room on the left for labels, pixels. @param {number} width */
export const gutter = (width) => (width < 640 ? 78 : 128);

/** An element's width, as it changes. @param {{current: HTMLElement | null}} ref */
export function useWidth(ref) {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(Math.floor(element.clientWidth)));
    observer.observe(element);
    setWidth(Math.floor(element.clientWidth));
    return () => observer.disconnect();
  }, []);
  return width;
}

/** Where a time lies between the left and the right end. @param {number} at @param {[number, number]} range @param {number} width of the plot */
export const position = (at, [from, until], width) => ((at - from) / (until - from || 1)) * width;
