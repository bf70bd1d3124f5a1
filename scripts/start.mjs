// `npm start`: make everything ready, then run the example gateway. Arguments go to `ringway start`: npm start -- -c other.config.ts
import { launch } from '../bin/launch.mjs';
import { root, setup } from './setup.mjs';

const given = process.argv.slice(2);
const config = given.includes('-c') || given.includes('--config') ? [] : ['-c', 'gateway.config.ts'];

process.chdir(root);
setup('start');
launch(['start', ...config, ...given]);
