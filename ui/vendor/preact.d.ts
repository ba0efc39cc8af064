export { h, render } from 'preact';
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
export { effect, signal } from '@preact/signals';
export { default as htm } from 'htm';
