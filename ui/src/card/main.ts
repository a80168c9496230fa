// The card window: a page of its own, so that it loads little and the rest of the UI is not in it.

import '#ui/language';
import '#ui/tokens.css';
import './fonts.css';
import '#ui/base.css';
import { mount } from 'svelte';
import Card from './Card.svelte';

mount(Card, { target: document.getElementById('app') ?? document.body, props: { id: location.hash.slice(1) } });
