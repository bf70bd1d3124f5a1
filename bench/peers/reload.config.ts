/** The example, whose old workers are gone ten seconds after a reload. */
import example from '../../gateway.config.ts';
import { defineGateway } from '../../src/index.ts';

export default defineGateway({ ...example, drain: { timeout: 10 } });
