import './language';
import './tokens.css';
import './base.css';
import { mount } from 'svelte';
import App from './App.svelte';
import { loadTheme } from './state/theme';
import { start } from './state/world.svelte';

void start();
// Painted in the right colours at once; a host that does not answer delays nothing.
await Promise.race([loadTheme(), new Promise((late) => setTimeout(late, 150))]);
mount(App, { target: document.getElementById('app') ?? document.body });
